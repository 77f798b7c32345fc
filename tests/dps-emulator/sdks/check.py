"""Azure's SDKs for Python against the emulator.

The SDKs are not changed. Only name resolution is: every Azure name leads to the emulator's ports, since
the SDKs know no others than 443 and 8883.
"""

import datetime
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

TENANT = "0a0a0a0a-1111-2222-3333-444444444444"


def start(program, folder):
    arguments = [program, "--tls-dir", os.path.join(folder, "tls"), "--retry-after", "1"]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    return child, json.loads(child.stdout.readline())


def redirect(ready):
    """Lead every Azure name to the emulator."""
    https, mqtt = (int(ready[name].rsplit(":", 1)[1]) for name in ("addr", "mqtt_addr"))
    resolve = socket.getaddrinfo

    def getaddrinfo(host, port, *arguments, **options):
        if isinstance(host, str) and host.endswith((".net", ".com")):
            target = ("127.0.0.1", mqtt if str(port) == "8883" else https)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", target)]
        return resolve(host, port, *arguments, **options)

    socket.getaddrinfo = getaddrinfo
    os.environ["REQUESTS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = ready["ca_file"]


def text(path):
    with open(path, encoding="ascii") as file:
        return file.read()


def control(ready, method, path, body):
    request = urllib.request.Request(ready["control_url"] + path, json.dumps(body).encode(), method=method)
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request).close()


def refused(error, call):
    """The call must fail with an error of this name."""
    try:
        call()
    except Exception as found:  # the SDKs' errors have no common ancestor
        assert type(found).__name__ == error, found
        return found
    raise AssertionError(f"no {error}")


def authorities(ready, credential):
    """Upload, code, proof: each step with the ETag of the one before."""
    from azure.core import MatchConditions
    from azure.mgmt.iothubprovisioningservices import IotDpsClient

    arm = ready["arm"]
    group, name = arm["resource_group"], arm["name"]
    client = IotDpsClient(credential, arm["subscription"], connection_verify=ready["ca_file"])
    assert client.iot_dps_resource.get(name, group).properties.id_scope == ready["id_scope"]
    certificates = client.dps_certificate
    upload = {"properties": {"certificate": text("root.pem").encode()}}
    made = certificates.create_or_update(group, name, "root", upload)
    matching = {"match_condition": MatchConditions.IfNotModified}
    coded = certificates.generate_verification_code("root", group, name, etag=made.etag, **matching)
    subject = "/CN=" + coded.properties.verification_code
    request = ["openssl", "req", "-new", "-key", "leaf.key", "-out", "proof.csr", "-subj", subject]
    subprocess.run(request, check=True)
    sign = "openssl x509 -req -in proof.csr -CA root.pem -CAkey root.key -days 1 -out proof.pem"
    subprocess.run(sign.split(), check=True, capture_output=True)
    proof = {"certificate": text("proof.pem")}
    stale = lambda: certificates.verify_certificate("root", group, name, proof, etag=made.etag, **matching)
    refused("ResourceModifiedError", stale)
    done = certificates.verify_certificate("root", group, name, proof, etag=coded.etag, **matching)
    assert done.properties.is_verified


def enrollments(ready, credential):
    """Create, update by ETag, query, bulk; with Entra ID and with a shared key."""
    from azure.iot.deviceprovisioning import DeviceProvisioningClient

    by_token = DeviceProvisioningClient("https://" + ready["service_host"], credential)
    by_key = DeviceProvisioningClient.from_connection_string(ready["service_connection_string"])
    slot = {"primary": {"certificate": text("own.pem")}}
    record = {"registrationId": "press-9", "attestation": {"type": "x509", "x509": {"clientCertificates": slot}}}
    read = by_token.enrollment.create_or_update("press-9", record)
    again = refused("ResourceExistsError", lambda: by_token.enrollment.create_or_update("press-9", read))
    assert again.status_code == 409
    read["deviceId"] = "device-9"
    by_key.enrollment.create_or_update("press-9", read, if_match=read["etag"])
    stale = lambda: by_key.enrollment.create_or_update("press-9", read, if_match=read["etag"])
    assert refused("HttpResponseError", stale).status_code == 412
    refused("ResourceNotFoundError", lambda: by_key.enrollment.get("nobody"))
    query = {"query": "SELECT * FROM enrollments"}
    assert [own["registrationId"] for own in by_key.enrollment.query(query)] == ["press-9"]
    bulk = {"mode": "delete", "enrollments": [{"registrationId": "press-9"}]}
    assert by_key.enrollment.run_bulk_operation(bulk)["isSuccessful"]
    slot = {"primary": {"certificate": text("root.pem")}}
    record = {"enrollmentGroupId": "line-4", "attestation": {"type": "x509", "x509": {"signingCertificates": slot}}}
    by_key.enrollment_group.create_or_update("line-4", record)
    return by_key


def device(ready, service):
    """Register over MQTT, connect to the hub, answer a method, be put out."""
    from azure.iot.device import X509, IoTHubDeviceClient, MethodResponse, ProvisioningDeviceClient
    from azure.iot.hub import IoTHubRegistryManager
    from azure.iot.hub.models import CloudToDeviceMethod

    identity = X509("chain.pem", "leaf.key")
    to_dps = ProvisioningDeviceClient.create_from_x509_certificate(
        ready["device_host"], "press-7", ready["id_scope"], identity)
    result = to_dps.register()
    assert (result.status, result.registration_state.assigned_hub) == ("assigned", ready["hub_host"])
    assert [own["registrationId"] for own in service.device_registration_state.query("line-4")] == ["press-7"]
    to_hub = IoTHubDeviceClient.create_from_x509_certificate(identity, ready["hub_host"], "press-7")
    to_hub.connect()
    answer = lambda call: MethodResponse.create_from_method_request(call, 200, {"got": call.payload})
    to_hub.on_method_request_received = lambda call: to_hub.send_method_response(answer(call))
    time.sleep(1)
    registry = IoTHubRegistryManager.from_connection_string(ready["hub_connection_string"])
    assert registry.get_device("press-7").connection_state == "Connected"
    method = CloudToDeviceMethod(method_name="reregister", payload={"a": 1})
    assert registry.invoke_device_method("press-7", method).payload == {"got": {"a": 1}}
    registry.delete_device("press-7")
    time.sleep(1)
    assert not to_hub.connected
    to_hub.shutdown()


def job(ready):
    """A scheduled method for a device that is online."""
    from azure.iot.hub import IoTHubJobManager, IoTHubRegistryManager
    from azure.iot.hub.models import CloudToDeviceMethod
    from azure.iot.hub.protocol.models import JobRequest

    registry = IoTHubRegistryManager.from_connection_string(ready["hub_connection_string"])
    registry.create_device_with_x509("press-8", "A" * 64, "B" * 64, "enabled")
    control(ready, "PUT", "/devices/press-8", {"status": 200, "payload": {}})
    method = CloudToDeviceMethod(method_name="reregister", payload={}, response_timeout_in_seconds=5)
    request = JobRequest(
        job_id="roll", type="scheduleDeviceMethod", cloud_to_device_method=method,
        start_time=datetime.datetime.now(datetime.timezone.utc).isoformat(),
        max_execution_time_in_seconds=60, query_condition="deviceId = 'press-8'")
    manager = IoTHubJobManager.from_connection_string(ready["hub_connection_string"])
    manager.create_scheduled_job("roll", request)
    time.sleep(1)
    done = manager.get_scheduled_job("roll")
    assert (done.status, done.device_job_statistics.succeeded_count) == ("completed", 1)


def main(program, folder):
    os.chdir(folder)
    child, ready = start(program, folder)
    try:
        redirect(ready)
        from azure.identity import CertificateCredential

        client = {"tenant": TENANT, "client_id": "roller", "certificate": text("application.crt")}
        control(ready, "POST", "/clients", client)
        credential = CertificateCredential(TENANT, "roller", "application.pem")
        authorities(ready, credential)
        device(ready, enrollments(ready, credential))
        job(ready)
        print("python: done")
    finally:
        child.terminate()


main(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]))
