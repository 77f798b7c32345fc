"use strict";
// azure-iothub: identities, direct methods, jobs.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { Client, JobClient, Registry } = require("azure-iothub");
const { world, control, refusal } = require("./world");

const registry = Registry.fromConnectionString(world.hub_connection_string);
const client = Client.fromConnectionString(world.hub_connection_string);
const jobs = JobClient.fromConnectionString(world.hub_connection_string);

const known = (deviceId) => ({
  deviceId,
  status: "enabled",
  authentication: {
    type: "selfSigned",
    x509Thumbprint: { primaryThumbprint: "A".repeat(64), secondaryThumbprint: "B".repeat(64) },
  },
});

test("an identity is created, read, updated, and deleted", async () => {
  const { responseBody: created } = await registry.create(known("hub-1"));
  assert.equal(created.deviceId, "hub-1");
  assert.equal(created.authentication.type, "selfSigned");
  const { responseBody: read } = await registry.get("hub-1");
  assert.deepEqual(read, created);
  assert.equal(read.connectionState, "Disconnected");

  const twice = await refusal(registry.create(known("hub-1")));
  assert.equal(twice.name, "DeviceAlreadyExistsError");
  const { responseBody: updated } = await registry.update({ ...known("hub-1"), status: "disabled" });
  assert.equal(updated.status, "disabled");
  assert.notEqual(updated.etag, created.etag);

  await registry.delete("hub-1");
  assert.equal((await refusal(registry.get("hub-1"))).name, "DeviceNotFoundError");
  assert.equal((await refusal(registry.delete("hub-1"))).name, "DeviceNotFoundError");
});

test("a direct method reaches a device that is online, and no other", async () => {
  await registry.create(known("hub-2"));
  const method = { methodName: "reprovision", payload: { why: "roll" }, responseTimeoutInSeconds: 5 };
  const offline = await refusal(client.invokeDeviceMethod("hub-2", method));
  // The SDK has no class for it: the reason is in the body.
  assert.match(offline.responseBody, /DeviceNotOnline/);

  await control("PUT", "/devices/hub-2", { status: 207, payload: { register: "soon" } });
  const { result } = await client.invokeDeviceMethod("hub-2", method);
  assert.deepEqual(result, { status: 207, payload: { register: "soon" } });
  assert.equal((await registry.get("hub-2")).responseBody.connectionState, "Connected");
  await control("DELETE", "/devices/hub-2");
  await registry.delete("hub-2");
  const unknown = await refusal(client.invokeDeviceMethod("hub-2", method));
  assert.equal(unknown.name, "DeviceNotFoundError");
});

/** A job's last word. */
async function ended(jobId) {
  for (let tries = 0; tries < 100; tries += 1) {
    const { jobStatus: job } = await jobs.getJob(jobId);
    if (["completed", "failed", "cancelled"].includes(job.status)) return job;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${jobId} did not end`);
}

test("a scheduled method runs on the devices of its condition; one of them is offline", async () => {
  for (const id of ["hub-3", "hub-4"]) await registry.create(known(id));
  await control("PUT", "/devices/hub-3", { status: 200, payload: null });
  const method = { methodName: "reprovision", payload: null, responseTimeoutInSeconds: 5 };
  const scheduled = await jobs.scheduleDeviceMethod(
    "roll-1", "deviceId IN ['hub-3','hub-4']", method, new Date(), 60,
  );
  assert.equal(scheduled.jobStatus.jobId, "roll-1");
  assert.equal(scheduled.jobStatus.type, "scheduleDeviceMethod");
  const job = await ended("roll-1");
  assert.deepEqual(
    [job.deviceJobStatistics.deviceCount, job.deviceJobStatistics.succeededCount, job.deviceJobStatistics.failedCount],
    [2, 1, 1],
  );
  const devices = registry.createQuery("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'roll-1'", 1);
  const pages = [];
  // Without its own token, next() asks for the first page for ever.
  while (devices.hasMoreResults) pages.push((await devices.next(devices.continuationToken)).result);
  const outcomes = pages.flat().map((it) => [it.deviceId, it.status, it.outcome?.deviceMethodResponse.status, it.error?.code]);
  assert.deepEqual(outcomes, [
    ["hub-3", "completed", 200, undefined],
    ["hub-4", "failed", undefined, "DeviceNotOnline"],
  ]);
  await control("DELETE", "/devices/hub-3");
  for (const id of ["hub-3", "hub-4"]) await registry.delete(id);
});

test("a job of tomorrow is cancelled, and both jobs are found by a query", async () => {
  const method = { methodName: "reprovision", payload: null, responseTimeoutInSeconds: 5 };
  const tomorrow = new Date(Date.now() + 24 * 3600 * 1000);
  await jobs.scheduleDeviceMethod("roll-2", "*", method, tomorrow, 60);
  assert.notEqual((await jobs.getJob("roll-2")).jobStatus.status, "completed");
  await jobs.cancelJob("roll-2");
  assert.equal((await ended("roll-2")).status, "cancelled");

  const query = jobs.createQuery("scheduleDeviceMethod", "cancelled");
  const { result } = await query.next();
  assert.ok(result.some((job) => job.jobId === "roll-2"));
  assert.ok(result.every((job) => job.status === "cancelled"));
});
