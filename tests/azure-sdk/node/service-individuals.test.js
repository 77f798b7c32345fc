"use strict";
// azure-iot-provisioning-service: individual enrollments.

const assert = require("node:assert/strict");
const { X509Certificate } = require("node:crypto");
const { test } = require("node:test");
const { ProvisioningServiceClient } = require("azure-iot-provisioning-service");
const { world, selfSigned, failNext, pages, individual, refusal } = require("./world");

const service = ProvisioningServiceClient.fromConnectionString(world.service_connection_string);

test("an individual enrollment is created, read, updated with its ETag, and deleted", async () => {
  const { cert } = selfSigned("press-1");
  const sent = individual("press-1", cert, {
    deviceId: "press-1-in-the-hub",
    provisioningStatus: "enabled",
    initialTwin: { tags: { line: "4" }, properties: { desired: { speed: 7 } } },
    optionalDeviceInformation: { maker: "Example" },
    reprovisionPolicy: { updateHubAssignment: true, migrateDeviceData: false },
  });
  const created = (await service.createOrUpdateIndividualEnrollment(sent)).responseBody;
  assert.equal(created.registrationId, "press-1");
  assert.match(created.etag, /^".+"$/);

  const read = (await service.getIndividualEnrollment("press-1")).responseBody;
  assert.deepEqual(read, created);
  assert.equal(read.deviceId, "press-1-in-the-hub");
  assert.equal(read.initialTwin.properties.desired.speed, 7);
  assert.equal(read.optionalDeviceInformation.maker, "Example");
  assert.equal(read.reprovisionPolicy.migrateDeviceData, false);

  const updated = (await service.createOrUpdateIndividualEnrollment({ ...read, provisioningStatus: "disabled" }))
    .responseBody;
  assert.equal(updated.provisioningStatus, "disabled");
  assert.notEqual(updated.etag, read.etag);
  assert.equal(updated.createdDateTimeUtc, read.createdDateTimeUtc);

  await service.deleteIndividualEnrollment(updated);
  const gone = await refusal(service.getIndividualEnrollment("press-1"));
  assert.match(gone.message, /Not found/);
});

test("a certificate comes back as info; an info-only slot keeps it while the other slot is filled", async () => {
  const [old, next] = [selfSigned("press-2"), selfSigned("press-2")];
  const thumbprint = ({ cert }) => new X509Certificate(cert).fingerprint256.replaceAll(":", "");
  const { responseBody: first } = await service.createOrUpdateIndividualEnrollment(individual("press-2", old.cert));
  const slots = first.attestation.x509.clientCertificates;
  assert.equal(slots.primary.certificate, undefined);
  assert.equal(slots.primary.info.sha256Thumbprint.toUpperCase(), thumbprint(old));
  assert.equal(slots.primary.info.subjectName, "CN=press-2");

  slots.secondary = { certificate: next.cert };
  const { responseBody: both } = await service.createOrUpdateIndividualEnrollment(first);
  const { primary, secondary } = both.attestation.x509.clientCertificates;
  assert.equal(primary.info.sha256Thumbprint.toUpperCase(), thumbprint(old));
  assert.equal(secondary.info.sha256Thumbprint.toUpperCase(), thumbprint(next));

  delete both.attestation.x509.clientCertificates.primary;
  const { responseBody: rolled } = await service.createOrUpdateIndividualEnrollment(both);
  const left = rolled.attestation.x509.clientCertificates;
  assert.equal(left.primary ?? null, null);
  assert.equal(left.secondary.info.sha256Thumbprint.toUpperCase(), thumbprint(next));
  await service.deleteIndividualEnrollment("press-2");
});

test("a stale ETag is an InvalidEtagError, a second create is a DeviceAlreadyExistsError", async () => {
  const { cert } = selfSigned("press-3");
  const { responseBody: first } = await service.createOrUpdateIndividualEnrollment(individual("press-3", cert));
  await service.createOrUpdateIndividualEnrollment(first);

  const stale = await refusal(service.createOrUpdateIndividualEnrollment(first));
  assert.equal(stale.name, "InvalidEtagError");
  const staleDelete = await refusal(service.deleteIndividualEnrollment(first));
  assert.equal(staleDelete.name, "InvalidEtagError");
  const again = await refusal(service.createOrUpdateIndividualEnrollment(individual("press-3", cert)));
  assert.equal(again.name, "DeviceAlreadyExistsError");

  await service.createOrUpdateIndividualEnrollment(individual("press-3", cert, { etag: "*" }));
  await service.deleteIndividualEnrollment("press-3", "*");
  assert.match((await refusal(service.deleteIndividualEnrollment("press-3"))).message, /Not found/);
});

test("a body that says nothing is an ArgumentError, a wrong key an UnauthorizedError", async () => {
  const nothing = await refusal(service.createOrUpdateIndividualEnrollment({ registrationId: "press-4" }));
  assert.equal(nothing.name, "ArgumentError");
  const key = Buffer.from("another key").toString("base64");
  const stranger = ProvisioningServiceClient.fromConnectionString(
    world.service_connection_string.replace(/SharedAccessKey=.*/, `SharedAccessKey=${key}`),
  );
  const refused = await refusal(stranger.getIndividualEnrollment("press-4"));
  assert.equal(refused.name, "UnauthorizedError");
});

test("throttling and server errors have their own classes", async () => {
  await failNext("individual.get", 429);
  assert.equal((await refusal(service.getIndividualEnrollment("press-5"))).name, "ThrottlingError");
  await failNext("individual.get", 500);
  assert.equal((await refusal(service.getIndividualEnrollment("press-5"))).name, "InternalServerError");
});

test("a query goes through all pages", async () => {
  const ids = [1, 2, 3, 4, 5].map((number) => `paged-${number}`);
  for (const id of ids) await service.createOrUpdateIndividualEnrollment(individual(id, selfSigned(id).cert));
  const query = service.createIndividualEnrollmentQuery({ query: "SELECT * FROM enrollments" }, 2);
  const { items, sizes } = await pages(query);
  const found = items.map((item) => item.registrationId).filter((id) => id.startsWith("paged-"));
  assert.deepEqual(found.sort(), ids);
  assert.equal(new Set(items.map((item) => item.registrationId)).size, items.length);
  assert.ok(sizes.length >= 3 && sizes.slice(0, -1).every((size) => size === 2), `${sizes}`);
  for (const id of ids) await service.deleteIndividualEnrollment(id);
});

test("the attestation mechanism of an enrollment is read on its own", async () => {
  const { cert } = selfSigned("press-6");
  await service.createOrUpdateIndividualEnrollment(individual("press-6", cert));
  const { responseBody } = await service.getIndividualEnrollmentAttestationMechanism("press-6");
  assert.equal(responseBody.type, "x509");
  assert.equal(responseBody.x509.clientCertificates.primary.info.subjectName, "CN=press-6");
  await service.deleteIndividualEnrollment("press-6");
});

test("an enrollment with symmetric keys gets its keys from the service", async () => {
  const attestation = { type: "symmetricKey", symmetricKey: {} };
  await service.createOrUpdateIndividualEnrollment({ registrationId: "press-7", attestation });
  const { responseBody } = await service.getIndividualEnrollmentAttestationMechanism("press-7");
  const keys = responseBody.symmetricKey;
  assert.ok(Buffer.from(keys.primaryKey, "base64").length >= 16);
  assert.notEqual(keys.primaryKey, keys.secondaryKey);
  await service.deleteIndividualEnrollment("press-7");
});

// Its promise form never settles: the SDK calls back only where it was given a callback.
const bulk = (operation) =>
  new Promise((resolve, reject) =>
    service.runBulkEnrollmentOperation(operation, (error, result) => (error ? reject(error) : resolve(result))),
  );

test("a bulk operation creates, updates and deletes, and names the ones that failed", async () => {
  const enrollments = ["bulk-1", "bulk-2"].map((id) => individual(id, selfSigned(id).cert));
  assert.equal((await bulk({ mode: "create", enrollments })).isSuccessful, true);

  const mixed = [enrollments[0], individual("bulk-3", selfSigned("bulk-3").cert)];
  const result = await bulk({ mode: "create", enrollments: mixed });
  assert.equal(result.isSuccessful, false);
  assert.deepEqual(result.errors.map((error) => error.registrationId), ["bulk-1"]);
  assert.equal((await service.getIndividualEnrollment("bulk-3")).responseBody.registrationId, "bulk-3");

  const disabled = enrollments.map((enrollment) => ({ ...enrollment, provisioningStatus: "disabled" }));
  assert.equal((await bulk({ mode: "update", enrollments: disabled })).isSuccessful, true);
  const { responseBody: read } = await service.getIndividualEnrollment("bulk-2");
  assert.equal(read.provisioningStatus, "disabled");

  const stale = { ...read, etag: '"nobody-has-this"' };
  assert.equal((await bulk({ mode: "updateIfMatchEtag", enrollments: [stale] })).isSuccessful, false);
  assert.equal((await bulk({ mode: "updateIfMatchEtag", enrollments: [read] })).isSuccessful, true);

  const all = ["bulk-1", "bulk-2", "bulk-3"].map((registrationId) => ({ ...enrollments[0], registrationId }));
  assert.equal((await bulk({ mode: "delete", enrollments: all })).isSuccessful, true);
  assert.match((await refusal(service.getIndividualEnrollment("bulk-1"))).message, /Not found/);
});
