"""What the suites share: the world that `run` made, certificates, and the emulator's control address."""

import hashlib
import json
import os
import ssl
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

WORLD = json.loads(Path(os.environ["AZURE_SDK_WORLD"]).read_text())


class Issued:
    """Key and chain that the daemon issued: what a device presents."""

    def __init__(self, name):
        self.cert_file = f"{WORLD['devices']}/{name}.pem"
        self.key_file = f"{WORLD['devices']}/{name}.key"

    @property
    def leaf(self):
        end = "-----END CERTIFICATE-----\n"
        return Path(self.cert_file).read_text().partition(end)[0] + end

    @property
    def thumbprint(self):
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.leaf)).hexdigest().upper()


class Made:
    """A certificate made here, signed by `issuer` or by itself."""

    def __init__(self, common_name, issuer=None, authority=False, key=None):
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer.certificate.subject if issuer else name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
            builder = builder.add_extension(usage, critical=False)
        self.certificate = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self):
        pkcs8 = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(
            serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()
        ).decode()

    @property
    def thumbprint(self):
        return self.certificate.fingerprint(hashes.SHA256()).hex().upper()


def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def control(method, address, body=None):
    """Ask the emulator's control address."""
    request = urllib.request.Request(
        WORLD["control_url"] + address,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def fail_next(operation, status, times=1, headers=()):
    """Let the next requests of an operation fail with this status."""
    action = {"kind": "status", "status": status, "headers": [list(header) for header in headers]}
    control("POST", "/faults", {"aim": {"operation": operation}, "times": times, "action": action})


def individual(registration_id, pem, **more):
    slots = {"primary": {"certificate": pem}}
    attestation = {"type": "x509", "x509": {"clientCertificates": slots}}
    return {"registrationId": registration_id, "attestation": attestation, **more}


def group(group_id, pem, **more):
    slots = {"primary": {"certificate": pem}}
    attestation = {"type": "x509", "x509": {"signingCertificates": slots}}
    return {"enrollmentGroupId": group_id, "attestation": attestation, **more}


def group_by_reference(group_id, authority_name, **more):
    attestation = {"type": "x509", "x509": {"caReferences": {"primary": authority_name}}}
    return {"enrollmentGroupId": group_id, "attestation": attestation, **more}
