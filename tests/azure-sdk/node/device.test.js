"use strict";
// azure-iot-provisioning-device over -http and -mqtt, with azure-iot-security-x509, and what the service
// SDK says of the registrations. Leaves and chains are the daemon's.

const assert = require("node:assert/strict");
const { X509Certificate } = require("node:crypto");
const { test } = require("node:test");
const { ProvisioningDeviceClient } = require("azure-iot-provisioning-device");
const { Http } = require("azure-iot-provisioning-device-http");
const { Mqtt } = require("azure-iot-provisioning-device-mqtt");
const { ProvisioningServiceClient } = require("azure-iot-provisioning-service");
const { X509Security } = require("azure-iot-security-x509");
const { Registry } = require("azure-iothub");
const { world, issued, leafOf, selfSigned, failNext, pages, individual, refusal } = require("./world");

const service = ProvisioningServiceClient.fromConnectionString(world.service_connection_string);
const hub = Registry.fromConnectionString(world.hub_connection_string);

/** Register as a device does; it leaves nothing connected behind. */
async function register(Transport, id, identity, payload) {
  const transport = new Transport();
  const security = new X509Security(id, identity);
  const client = ProvisioningDeviceClient.create(world.device_host, world.id_scope, transport, security);
  if (payload !== undefined) client.setProvisioningPayload(payload);
  try {
    return await client.register();
  } finally {
    await new Promise((resolve) => transport.disconnect(resolve));
  }
}

async function thumbprintInHub(deviceId) {
  const { responseBody } = await hub.get(deviceId);
  return responseBody.authentication.x509Thumbprint.primaryThumbprint;
}

const thumbprint = ({ cert }) => new X509Certificate(cert).fingerprint256.replaceAll(":", "");

for (const [name, Transport] of [["http", Http], ["mqtt", Mqtt]]) {
  test(`${name}: a device of the group is assigned by its chain, and the hub knows its leaf`, async () => {
    const id = `node-${name}`;
    const device = issued(id);
    const result = await register(Transport, id, device, { model: "pump" });
    assert.equal(result.assignedHub, world.hub_host);
    assert.equal(result.deviceId, id);
    assert.equal(result.status, "assigned");
    assert.equal(await thumbprintInHub(id), thumbprint(device));

    const { responseBody: state } = await service.getDeviceRegistrationState(id);
    assert.equal(state.status, "assigned");
    assert.equal(state.assignedHub, world.hub_host);
    const query = service.createEnrollmentGroupDeviceRegistrationStateQuery({ query: "SELECT *" }, "line-1", 1);
    const { items } = await pages(query);
    assert.ok(items.some((item) => item.registrationId === id));

    await service.deleteDeviceRegistrationState(state);
    assert.match((await refusal(service.getDeviceRegistrationState(id))).message, /Not found/);
  });

  test(`${name}: a rolled device is let in by either slot, and the hub follows`, async () => {
    const id = `node-${name}-rolled`;
    for (const slot of ["primary", "secondary", "primary", "secondary"]) {
      const device = issued(`${id}.${slot}`);
      const result = await register(Transport, id, device);
      assert.equal(result.deviceId, id);
      assert.equal(await thumbprintInHub(id), thumbprint(device));
    }
    assert.notEqual(thumbprint(issued(`${id}.primary`)), thumbprint(issued(`${id}.secondary`)));
  });

  test(`${name}: a disabled enrollment keeps a device of the group out until it is deleted`, async () => {
    const id = `node-${name}-blocked`;
    const device = issued(id);
    const blocked = individual(id, leafOf(device.cert), { provisioningStatus: "disabled" });
    await service.createOrUpdateIndividualEnrollment(blocked);
    const refused = await refusal(register(Transport, id, device));
    assert.ok(refused instanceof SyntaxError, refused.name);
    assert.match(refused.message, /status is disabled/);
    assert.equal((await service.getDeviceRegistrationState(id)).responseBody.status, "disabled");

    await service.deleteIndividualEnrollment(id);
    assert.equal((await register(Transport, id, device)).status, "assigned");
    await service.deleteDeviceRegistrationState(id);
  });

  test(`${name}: a self-signed certificate of an individual enrollment is enough, and the hub gets its twin`, async () => {
    const id = `node-${name}-alone`;
    const device = selfSigned(id);
    const deviceId = `${id}-in-the-hub`;
    const initialTwin = { tags: { line: "4" }, properties: { desired: { speed: 7 } } };
    await service.createOrUpdateIndividualEnrollment(individual(id, device.cert, { deviceId, initialTwin }));
    const { responseBody: before } = await service.getDeviceRegistrationState(id);
    assert.equal(before.status, "unassigned");
    assert.equal((await register(Transport, id, device)).deviceId, deviceId);
    const { responseBody: twin } = await hub.getTwin(deviceId);
    assert.equal(twin.tags.line, "4");
    assert.equal(twin.properties.desired.speed, 7);
    await service.deleteIndividualEnrollment(id);
  });

  test(`${name}: without its chain, with a foreign certificate, and with no enrollment a device is refused`, async () => {
    const id = `node-${name}`;
    const device = issued(id);
    const withoutChain = await refusal(register(Transport, id, { ...device, cert: leafOf(device.cert) }));
    assert.equal(withoutChain.name, "UnauthorizedError");
    const foreign = await refusal(register(Transport, id, selfSigned(id)));
    assert.equal(foreign.name, "UnauthorizedError");
    const borrowed = await refusal(register(Transport, `node-${name}-other`, device));
    assert.equal(borrowed.name, "UnauthorizedError");
  });
}

test("mqtt: a throttled device waits and is assigned", async () => {
  const id = "node-mqtt";
  await failNext("device.register", 429);
  assert.equal((await register(Mqtt, id, issued(id))).status, "assigned");
});

test("http: a throttled device gets a ThrottlingError", async () => {
  const id = "node-http";
  await failNext("device.register", 429);
  assert.equal((await refusal(register(Http, id, issued(id)))).name, "ThrottlingError");
});
