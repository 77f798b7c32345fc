"""azure-iot-device: provisioning over MQTT with leaves and chains that the daemon issued."""

import asyncio

import pytest
from azure.iot.device import X509
from azure.iot.device.aio import ProvisioningDeviceClient as AsyncProvisioningDeviceClient
from azure.iot.device.exceptions import ClientError

from world import WORLD, Issued, Made, fail_next, individual


def thumbprint_in_hub(registry, device_id):
    return registry.get_device(device_id).authentication.x509_thumbprint.primary_thumbprint


@pytest.mark.parametrize("device_id", ["python-sync", "python-rsa"])
def test_a_device_of_the_group_is_assigned_by_its_chain(service, registry, register, device_id):
    device = Issued(device_id)
    result = register(device_id, device.cert_file, device.key_file, {"model": "pump"})
    assert result.status == "assigned"
    assert result.registration_state.assigned_hub == WORLD["hub_host"]
    assert result.registration_state.device_id == device_id
    assert thumbprint_in_hub(registry, device_id) == device.thumbprint

    state = service.device_registration_state.get(device_id)
    assert (state["status"], state["substatus"]) == ("assigned", "initialAssignment")
    of_group = service.device_registration_state.query("line-1")
    assert device_id in [state["registrationId"] for state in of_group]


def test_the_same_in_async_form(registry):
    device = Issued("python-aio")

    async def register():
        client = AsyncProvisioningDeviceClient.create_from_x509_certificate(
            provisioning_host=WORLD["device_host"],
            registration_id="python-aio",
            id_scope=WORLD["id_scope"],
            x509=X509(cert_file=device.cert_file, key_file=device.key_file),
        )
        return await client.register()

    result = asyncio.run(register())
    assert result.status == "assigned"
    assert thumbprint_in_hub(registry, "python-aio") == device.thumbprint


def test_a_rolled_device_is_let_in_by_either_slot_and_the_hub_follows(registry, register):
    slots = [Issued(f"python-rolled.{slot}") for slot in ("primary", "secondary")]
    assert slots[0].thumbprint != slots[1].thumbprint
    for device in slots + slots:
        result = register("python-rolled", device.cert_file, device.key_file)
        assert result.status == "assigned"
        assert thumbprint_in_hub(registry, "python-rolled") == device.thumbprint


def test_a_disabled_enrollment_keeps_a_device_of_the_group_out_until_it_is_deleted(service, register):
    device = Issued("python-blocked")
    blocked = individual("python-blocked", device.leaf, provisioningStatus="disabled")
    service.enrollment.create_or_update("python-blocked", blocked)
    with pytest.raises(ClientError) as refused:
        register("python-blocked", device.cert_file, device.key_file)
    # The SDK has no word for it: any status but assigned and failed is a failure of the service.
    assert "status disabled" in str(refused.value.__cause__)
    assert service.device_registration_state.get("python-blocked")["status"] == "disabled"
    service.enrollment.delete("python-blocked")
    assert register("python-blocked", device.cert_file, device.key_file).status == "assigned"


def test_a_self_signed_certificate_is_enough_and_the_hub_gets_its_twin(
    service, registry, register, files
):
    device = Made("python-alone")
    twin = {"tags": {"line": "4"}, "properties": {"desired": {"speed": 7}}}
    record = individual("python-alone", device.pem, initialTwin=twin)
    service.enrollment.create_or_update("python-alone", record)
    assert register("python-alone", *files(device)).status == "assigned"
    in_hub = registry.get_twin("python-alone")
    assert in_hub.tags["line"] == "4"
    assert in_hub.properties.desired["speed"] == 7
    service.enrollment.delete("python-alone")


def test_without_its_chain_or_with_a_foreign_certificate_a_device_is_refused(register, files, tmp_path):
    device = Issued("python-sync")
    leaf_file = tmp_path / "leaf.pem"
    leaf_file.write_text(device.leaf)
    for cert_file, key_file in [(str(leaf_file), device.key_file), files(Made("python-sync"))]:
        with pytest.raises(ClientError) as refused:
            register("python-sync", cert_file, key_file)
        assert "401" in str(refused.value.__cause__)


def test_a_throttled_device_waits_and_is_assigned(register):
    device = Issued("python-sync")
    fail_next("device.register", 429)
    assert register("python-sync", device.cert_file, device.key_file).status == "assigned"
