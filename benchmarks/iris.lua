wrk.method="POST"
wrk.body='{"data":[[5.1,3.5,1.4,0.2]]}'
wrk.headers["Content-Type"]="application/json"
