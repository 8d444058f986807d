"""Who may ask: API keys, bearer tokens of an OIDC issuer, rate limits, and TLS.

principal.py    who asks, and what that one may do
needs.py        what a request target asks for
credentials.py  the header's value, taken apart
keys.py         API keys: made, hashed, verified
keyfile.py      the file that holds them
ring.py         the keys of a running server
jwks.py         an issuer's signing keys
issuer.py       where they come from, and when they are fetched anew
fetching.py     over HTTP
oidc.py         tokens to principals
tokens.py       the tokens of a running server
rate.py         how often one may ask, across workers
guard.py        all of it, asked once for every request
watched.py      whether a file has changed
tls.py          certificates, and their exchange while the server runs
"""
