"""`fieldpost fleet demo`: a whole fleet on one machine, for a minute.

`processes` starts what has to be ended, `brokers` a broker (Mosquitto with the fleet's own
certificates, else amqtt with passwords), `story` tells what happens there, step by step.
"""
