"use strict";
// azure-iot-provisioning-service: enrollment groups.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { ProvisioningServiceClient } = require("azure-iot-provisioning-service");
const { world, selfSigned, pages, group, refusal } = require("./world");

const service = ProvisioningServiceClient.fromConnectionString(world.service_connection_string);
const authority = (name) => selfSigned(name, { authority: true }).cert;

test("a group is created, read, given a second authority, disabled, and deleted", async () => {
  const { responseBody: created } = await service.createOrUpdateEnrollmentGroup(group("hall-1", authority("Hall 1")));
  const { responseBody: read } = await service.getEnrollmentGroup("hall-1");
  assert.deepEqual(read, created);
  const slots = read.attestation.x509.signingCertificates;
  assert.equal(slots.primary.info.subjectName, "CN=Hall 1");

  slots.secondary = { certificate: authority("Hall 1, second") };
  read.provisioningStatus = "disabled";
  const { responseBody: updated } = await service.createOrUpdateEnrollmentGroup(read);
  const both = updated.attestation.x509.signingCertificates;
  assert.equal(both.primary.info.subjectName, "CN=Hall 1");
  assert.match(both.secondary.info.subjectName, /Hall 1, second|Hall 1\\, second/);
  assert.equal(updated.provisioningStatus, "disabled");

  const stale = await refusal(service.createOrUpdateEnrollmentGroup(created));
  assert.equal(stale.name, "InvalidEtagError");
  const again = await refusal(service.createOrUpdateEnrollmentGroup(group("hall-1", authority("Hall 1"))));
  assert.equal(again.name, "DeviceAlreadyExistsError");
  assert.equal((await refusal(service.deleteEnrollmentGroup("hall-1", created.etag))).name, "InvalidEtagError");

  await service.deleteEnrollmentGroup(updated);
  assert.match((await refusal(service.getEnrollmentGroup("hall-1"))).message, /Not found/);
});

test("the group that the daemon keeps names line-1 and stands beside its own", async () => {
  const { responseBody: kept } = await service.getEnrollmentGroup("line-1");
  assert.match(kept.attestation.x509.signingCertificates.primary.info.subjectName, /CN=Example Works Line 1/);
  assert.equal(kept.provisioningStatus, "enabled");
});

test("a query goes through all pages", async () => {
  const ids = ["paged-hall-1", "paged-hall-2", "paged-hall-3"];
  for (const id of ids) await service.createOrUpdateEnrollmentGroup(group(id, authority(id)));
  const { items, sizes } = await pages(service.createEnrollmentGroupQuery({ query: "SELECT *" }, 1));
  const found = items.map((item) => item.enrollmentGroupId).filter((id) => id.startsWith("paged-"));
  assert.deepEqual(found.sort(), ids);
  assert.ok(sizes.every((size) => size <= 1), `${sizes}`);
  for (const id of ids) await service.deleteEnrollmentGroup(id);
});

test("the attestation mechanism of a group is read under the SDK's own spelling of the address", async () => {
  await service.createOrUpdateEnrollmentGroup(group("hall-2", authority("Hall 2")));
  const { responseBody } = await service.getEnrollmentGroupAttestationMechanism("hall-2");
  assert.equal(responseBody.type, "x509");
  assert.equal(responseBody.x509.signingCertificates.primary.info.subjectName, "CN=Hall 2");
  await service.deleteEnrollmentGroup("hall-2");
});
