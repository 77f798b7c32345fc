"""Clients of the SDKs, and a device of azure-iot-device."""

import pytest
from azure.identity import CertificateCredential
from azure.iot.device import ProvisioningDeviceClient, X509
from azure.iot.deviceprovisioning import DeviceProvisioningClient
from azure.iot.hub import IoTHubRegistryManager

from world import WORLD, Made, control, rsa_key

TENANT = "72f988bf-0000-0000-0000-2d7cd011db47"
CLIENT_ID = "4f1f9c42-0000-0000-0000-0e2d1ab4c7e1"


@pytest.fixture(scope="session")
def service():
    return DeviceProvisioningClient.from_connection_string(WORLD["service_connection_string"])


@pytest.fixture(scope="session")
def registry():
    return IoTHubRegistryManager.from_connection_string(WORLD["hub_connection_string"])


@pytest.fixture(scope="session")
def credential():
    """An application of the directory, known by a certificate: azure-identity signs an assertion with
    its key and exchanges it at the token endpoint."""
    application = Made("hallmark-operations", key=rsa_key())
    client = {"tenant": TENANT, "client_id": CLIENT_ID, "certificate": application.pem}
    control("POST", "/clients", client)
    both = (application.pem + application.key_pem).encode()
    return CertificateCredential(TENANT, CLIENT_ID, certificate_data=both)


@pytest.fixture
def register(tmp_path):
    """Register as a device does, over MQTT."""

    def register(registration_id, cert_file, key_file, payload=None):
        client = ProvisioningDeviceClient.create_from_x509_certificate(
            provisioning_host=WORLD["device_host"],
            registration_id=registration_id,
            id_scope=WORLD["id_scope"],
            x509=X509(cert_file=cert_file, key_file=key_file),
        )
        if payload is not None:
            client.provisioning_payload = payload
        return client.register()

    return register


@pytest.fixture
def files(tmp_path):
    """Write a chain, leaf first, and the leaf's key to where a device finds them."""

    def files(*chain):
        cert_file, key_file = tmp_path / "chain.pem", tmp_path / "leaf.key"
        cert_file.write_text("".join(certificate.pem for certificate in chain))
        key_file.write_text(chain[0].key_pem)
        return str(cert_file), str(key_file)

    return files
