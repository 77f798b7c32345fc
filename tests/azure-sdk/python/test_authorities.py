"""azure-mgmt-iothubprovisioningservices with azure-identity: CA certificates of the provisioning
service, from upload over proof of possession to a device below them."""

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.iot.device.exceptions import ClientError
from azure.mgmt.iothubprovisioningservices import IotDpsClient

from world import WORLD, Made, group_by_reference

PLACE = (WORLD["arm"]["resource_group"], WORLD["arm"]["name"])


@pytest.fixture(scope="module")
def arm(credential):
    return IotDpsClient(credential, WORLD["arm"]["subscription"])


@pytest.fixture(scope="module")
def authorities(arm):
    return arm.dps_certificate


def upload(authorities, name, made, **more):
    body = {"properties": {"certificate": made.pem.encode(), **more}}
    return authorities.create_or_update(*PLACE, name, body)


def unchanged(etag):
    return {"etag": etag, "match_condition": MatchConditions.IfNotModified}


def drop(authorities, name):
    etag = authorities.get(name, *PLACE).etag
    authorities.delete(*PLACE, name, **unchanged(etag))


def test_the_resource_tells_where_devices_and_back_ends_go(arm):
    resource = arm.iot_dps_resource.get(PLACE[1], PLACE[0])
    assert resource.properties.id_scope == WORLD["id_scope"]
    assert resource.properties.device_provisioning_host_name == WORLD["device_host"]
    assert resource.properties.service_operations_host_name == WORLD["service_host"]


def test_the_root_that_the_daemon_proved_is_verified(authorities):
    listed = authorities.list(*PLACE).value
    verified = [one for one in listed if one.properties.is_verified]
    assert "Example Works Device Root" in [one.properties.subject for one in verified]


def test_possession_is_proved_step_by_step_and_a_device_registers_below(
    authorities, service, register, files
):
    root = Made("Judge Root", authority=True)
    uploaded = upload(authorities, "judge-root", root)
    assert uploaded.properties.is_verified is False
    assert uploaded.properties.subject == "Judge Root"
    asked = authorities.generate_verification_code("judge-root", *PLACE, **unchanged(uploaded.etag))
    code = asked.properties.verification_code
    assert asked.etag != uploaded.etag

    proof = Made(code, issuer=root)
    with pytest.raises(ResourceModifiedError):
        authorities.verify_certificate(
            "judge-root", *PLACE, {"certificate": proof.pem}, **unchanged(uploaded.etag)
        )
    verified = authorities.verify_certificate(
        "judge-root", *PLACE, {"certificate": proof.pem}, **unchanged(asked.etag)
    )
    assert verified.properties.is_verified is True
    assert authorities.get("judge-root", *PLACE).properties.is_verified is True

    service.enrollment_group.create_or_update(
        "judges", group_by_reference("judges", "judge-root")
    )
    device = files(Made("judge-1", issuer=root), root)
    assert register("judge-1", *device).status == "assigned"
    [state] = service.device_registration_state.query("judges")
    assert state["registrationId"] == "judge-1"

    judges = service.enrollment_group.get("judges")
    judges["provisioningStatus"] = "disabled"
    service.enrollment_group.create_or_update("judges", judges, if_match=judges["etag"])
    with pytest.raises(ClientError) as refused:
        register("judge-1", *device)
    assert "status disabled" in str(refused.value.__cause__)
    service.enrollment_group.delete("judges")
    service.device_registration_state.delete("judge-1")
    drop(authorities, "judge-root")


def test_a_proof_by_another_key_or_of_another_code_is_refused(authorities):
    root = Made("Judge Root 2", authority=True)
    etag = upload(authorities, "judge-root-2", root).etag
    asked = authorities.generate_verification_code("judge-root-2", *PLACE, **unchanged(etag))
    stranger = Made("Judge Root 2", authority=True)
    code = asked.properties.verification_code
    for proof in [Made(code, issuer=stranger), Made("0" * len(code), issuer=root)]:
        current = authorities.get("judge-root-2", *PLACE).etag
        with pytest.raises(HttpResponseError) as refused:
            authorities.verify_certificate(
                "judge-root-2", *PLACE, {"certificate": proof.pem}, **unchanged(current)
            )
        assert refused.value.status_code == 400
    assert authorities.get("judge-root-2", *PLACE).properties.is_verified is False
    drop(authorities, "judge-root-2")


def test_an_upload_may_declare_itself_verified_and_is_replaced_only_with_its_etag(authorities):
    created = upload(authorities, "judge-root-3", Made("Judge Root 3", authority=True), isVerified=True)
    assert created.properties.is_verified is True
    other = {"properties": {"certificate": Made("Judge Root 3b", authority=True).pem.encode()}}
    with pytest.raises(ResourceModifiedError):
        authorities.create_or_update(*PLACE, "judge-root-3", other, **unchanged("AAAAAAAAAAA="))
    replaced = authorities.create_or_update(*PLACE, "judge-root-3", other, **unchanged(created.etag))
    assert replaced.properties.subject == "Judge Root 3b"
    with pytest.raises(ResourceModifiedError):
        authorities.delete(*PLACE, "judge-root-3", **unchanged(created.etag))
    authorities.delete(*PLACE, "judge-root-3", **unchanged(replaced.etag))
    with pytest.raises(ResourceNotFoundError):
        authorities.get("judge-root-3", *PLACE)
