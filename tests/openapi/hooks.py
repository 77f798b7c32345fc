"""Bodies of the media types that Schemathesis does not know, and a check of refusals."""

import os

import schemathesis

# The role of the certificate that the requests come with.
ROLE = os.environ.get("HALLMARK_ROLE", "local")


@schemathesis.serializer("application/pkcs10", "application/ocsp-request")
def as_they_are(_context, value):
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.check
def refusal(_context, response, case):
    """An operation that is for others refuses a device, or refuses the method before."""
    who = case.operation.definition.raw["description"]
    is_for_it = any(word in who for word in ("all", "callers", "devices"))
    if ROLE == "device" and not is_for_it:
        code = response.status_code
        assert code in (403, 405, 503), f"{who} A device got {code}."
