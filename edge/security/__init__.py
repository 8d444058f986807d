"""Who is who, and what may run: certificates, enrolment, signed metadata, signed wishes.

The device's side (`trust`, `trusted`, `truststore`, `identity`, `joining`) imports no more than
cryptography and tuf's data classes; the controller's side stands beside it.
"""
