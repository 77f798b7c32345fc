"""Bodies of the media types that Schemathesis does not know."""

import schemathesis


@schemathesis.serializer("application/pkcs10", "application/ocsp-request")
def as_they_are(_context, value):
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")
