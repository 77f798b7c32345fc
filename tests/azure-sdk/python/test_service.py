"""azure-iot-deviceprovisioning: individual enrollments, groups, registrations."""

import pytest
from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.iot.deviceprovisioning import DeviceProvisioningClient, generate_sas_token

from world import WORLD, Made, fail_next, group, individual


def test_an_individual_enrollment_lives_by_its_etag(service):
    pump = Made("pump-1")
    created = service.enrollment.create_or_update("pump-1", individual("pump-1", pump.pem))
    info = created["attestation"]["x509"]["clientCertificates"]["primary"]["info"]
    assert info["sha256Thumbprint"].upper() == pump.thumbprint
    assert service.enrollment.get("pump-1") == created

    created["provisioningStatus"] = "disabled"
    updated = service.enrollment.create_or_update("pump-1", created, if_match=created["etag"])
    assert updated["provisioningStatus"] == "disabled"
    assert updated["etag"] != created["etag"]

    with pytest.raises(HttpResponseError) as stale:
        service.enrollment.create_or_update("pump-1", created, if_match=created["etag"])
    assert stale.value.status_code == 412
    with pytest.raises(HttpResponseError) as stale:
        service.enrollment.delete("pump-1", if_match=created["etag"])
    assert stale.value.status_code == 412
    with pytest.raises(ResourceExistsError):
        service.enrollment.create_or_update("pump-1", individual("pump-1", pump.pem))

    service.enrollment.delete("pump-1", if_match=updated["etag"])
    with pytest.raises(ResourceNotFoundError) as gone:
        service.enrollment.get("pump-1")
    assert gone.value.response.json()["errorCode"] == 404201


def test_a_group_lives_by_its_etag(service):
    hall = Made("Hall 7", authority=True)
    created = service.enrollment_group.create_or_update("hall-7", group("hall-7", hall.pem))
    assert service.enrollment_group.get("hall-7") == created
    slots = created["attestation"]["x509"]["signingCertificates"]
    slots["secondary"] = {"certificate": Made("Hall 7", authority=True).pem}
    updated = service.enrollment_group.create_or_update("hall-7", created, if_match=created["etag"])
    assert set(updated["attestation"]["x509"]["signingCertificates"]) >= {"primary", "secondary"}

    with pytest.raises(HttpResponseError) as stale:
        service.enrollment_group.create_or_update("hall-7", created, if_match=created["etag"])
    assert stale.value.status_code == 412
    with pytest.raises(ResourceExistsError):
        service.enrollment_group.create_or_update("hall-7", group("hall-7", hall.pem))
    service.enrollment_group.delete("hall-7")
    with pytest.raises(ResourceNotFoundError) as gone:
        service.enrollment_group.get("hall-7")
    assert gone.value.response.json()["errorCode"] == 404204


def test_attestation_mechanisms_are_read_on_their_own(service):
    service.enrollment.create_or_update("pump-2", individual("pump-2", Made("pump-2").pem))
    hall = Made("Hall 8", authority=True)
    service.enrollment_group.create_or_update("hall-8", group("hall-8", hall.pem))
    one = service.enrollment.get_attestation_mechanism("pump-2")
    assert one["x509"]["clientCertificates"]["primary"]["info"]["subjectName"] == "CN=pump-2"
    all_ = service.enrollment_group.get_attestation_mechanism("hall-8")
    assert all_["x509"]["signingCertificates"]["primary"]["info"]["subjectName"] == "CN=Hall 8"
    service.enrollment.delete("pump-2")
    service.enrollment_group.delete("hall-8")


def test_queries_go_through_all_pages(service):
    ids = [f"paged-pump-{number}" for number in range(5)]
    for id in ids:
        service.enrollment.create_or_update(id, individual(id, Made(id).pem))
    pages = list(service.enrollment.query({"query": "SELECT * FROM enrollments"}, top=2).by_page())
    pages = [list(page) for page in pages]
    assert all(len(page) <= 2 for page in pages) and len(pages) >= 3
    found = [record["registrationId"] for page in pages for record in page]
    assert [id for id in found if id in ids] == ids
    for id in ids:
        service.enrollment.delete(id)


def test_queries_of_groups_go_through_all_pages(service):
    ids = [f"paged-hall-{number}" for number in range(3)]
    for id in ids:
        service.enrollment_group.create_or_update(id, group(id, Made(id, authority=True).pem))
    found = service.enrollment_group.query({"query": "SELECT *"}, top=1)
    assert [record["enrollmentGroupId"] for record in found if record["enrollmentGroupId"] in ids] == ids
    for id in ids:
        service.enrollment_group.delete(id)


def test_bulk_operations_on_individual_enrollments(service):
    records = [individual(id, Made(id).pem) for id in ("bulk-pump-1", "bulk-pump-2")]
    bulk = service.enrollment.run_bulk_operation
    assert bulk({"mode": "create", "enrollments": records})["isSuccessful"] is True
    again = bulk({"mode": "create", "enrollments": records[:1]})
    assert again["isSuccessful"] is False
    assert again["errors"][0]["registrationId"] == "bulk-pump-1"
    records[0]["provisioningStatus"] = "disabled"
    assert bulk({"mode": "update", "enrollments": records})["isSuccessful"] is True
    assert service.enrollment.get("bulk-pump-1")["provisioningStatus"] == "disabled"
    assert bulk({"mode": "delete", "enrollments": records})["isSuccessful"] is True
    with pytest.raises(ResourceNotFoundError):
        service.enrollment.get("bulk-pump-2")


def test_bulk_operations_on_groups(service):
    records = [group(id, Made(id, authority=True).pem) for id in ("bulk-hall-1", "bulk-hall-2")]
    bulk = service.enrollment_group.run_bulk_operation
    assert bulk({"mode": "create", "enrollmentGroups": records})["isSuccessful"] is True
    again = bulk({"mode": "create", "enrollmentGroups": records[1:]})
    assert again["errors"][0]["enrollmentGroupId"] == "bulk-hall-2"
    assert bulk({"mode": "delete", "enrollmentGroups": records})["isSuccessful"] is True
    with pytest.raises(ResourceNotFoundError):
        service.enrollment_group.get("bulk-hall-1")


def test_a_registration_begins_unassigned_and_is_deleted_by_its_etag(service):
    service.enrollment.create_or_update("pump-3", individual("pump-3", Made("pump-3").pem))
    state = service.device_registration_state.get("pump-3")
    assert state["status"] == "unassigned"
    with pytest.raises(HttpResponseError) as stale:
        service.device_registration_state.delete("pump-3", if_match="AAAA")
    assert stale.value.status_code == 412
    service.device_registration_state.delete("pump-3", if_match=state["etag"])
    service.enrollment.delete("pump-3")
    with pytest.raises(ResourceNotFoundError):
        service.device_registration_state.get("pump-3")


def test_a_throttled_client_waits_and_tries_again(service):
    fail_next("group.get", 429, times=2, headers=[("Retry-After", "1")])
    assert service.enrollment_group.get("line-1")["enrollmentGroupId"] == "line-1"


def test_tokens_of_azure_identity_and_signatures_made_elsewhere_are_let_in(credential):
    by_token = DeviceProvisioningClient(WORLD["service_host"], credential)
    assert by_token.enrollment_group.get("line-1")["provisioningStatus"] == "enabled"
    parts = dict(part.split("=", 1) for part in WORLD["service_connection_string"].split(";"))
    name, key = parts["SharedAccessKeyName"], parts["SharedAccessKey"]
    signature = AzureSasCredential(generate_sas_token(WORLD["service_host"], name, key))
    by_signature = DeviceProvisioningClient(WORLD["service_host"], signature)
    assert by_signature.enrollment_group.get("line-1")["provisioningStatus"] == "enabled"

    wrong = AzureSasCredential(generate_sas_token(WORLD["service_host"], name, "d3Jvbmc="))
    with pytest.raises(ClientAuthenticationError):
        DeviceProvisioningClient(WORLD["service_host"], wrong).enrollment_group.get("line-1")
