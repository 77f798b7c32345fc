// Azure's SDKs for Node against the emulator. The SDKs are not changed; only sockets are: every Azure name
// leads to the emulator's ports, since the SDKs know no others than 443 and 8883.
'use strict';

const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const https = require('node:https');
const net = require('node:net');
const path = require('node:path');
const tls = require('node:tls');

const [program, folder] = process.argv.slice(2);
const text = (name) => fs.readFileSync(path.join(folder, name), 'utf8');

function redirect(ready) {
  const port = (name) => Number(ready[name].split(':').pop());
  const connect = net.Socket.prototype.connect;
  net.Socket.prototype.connect = function (...args) {
    const options = Array.isArray(args[0]) ? args[0][0] : args[0];
    if (options && /\.(net|com)$/.test(options.host || '')) {
      options.port = Number(options.port) === 8883 ? port('mqtt_addr') : port('addr');
      options.host = '127.0.0.1';
    }
    return connect.apply(this, args);
  };
  const ca = fs.readFileSync(ready.ca_file);
  https.globalAgent.options.ca = ca;
  const tlsConnect = tls.connect;
  tls.connect = function (...args) {
    const options = args.find((value) => value && typeof value === 'object' && !Array.isArray(value));
    if (options) options.ca = ca;
    return tlsConnect.apply(this, args);
  };
}

async function refused(name, call) {
  await assert.rejects(call, (error) => error.name === name);
}

const settled = (start) =>
  new Promise((resolve, reject) => start((error, result) => (error ? reject(error) : resolve(result))));

async function enrollments(ready) {
  const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');
  const service = ProvisioningServiceClient.fromConnectionString(ready.service_connection_string);
  const clientCertificates = { primary: { certificate: text('own.pem') } };
  const attestation = { type: 'x509', x509: { clientCertificates } };
  const write = async (record) => (await service.createOrUpdateIndividualEnrollment(record)).responseBody;
  const read = await write({ registrationId: 'press-9', attestation });
  assert.equal((await write({ ...read, deviceId: 'device-9' })).deviceId, 'device-9');
  await refused('InvalidEtagError', () => write({ ...read, etag: '"stale"' }));
  await refused('Error', () => service.getIndividualEnrollment('nobody'));
  const query = service.createIndividualEnrollmentQuery({ query: 'SELECT * FROM enrollments' }, 10);
  const page = await settled((done) => query.next(done));
  assert.equal(page.length, 1);
  // Posts to a path with a trailing slash; its promise form never settles.
  const bulk = { mode: 'delete', enrollments: [{ registrationId: 'nobody' }] };
  const result = await settled((done) => service.runBulkEnrollmentOperation(bulk, done));
  assert.equal(result.errors[0].errorCode, 404201);
  const mechanism = await service.getIndividualEnrollmentAttestationMechanism('press-9');
  assert.equal(mechanism.responseBody.type, 'x509');
  return service;
}

async function register(ready, transport) {
  const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
  const { X509Security } = require('azure-iot-security-x509');
  const security = new X509Security('press-9', { cert: text('own.pem'), key: text('own.key') });
  const device = ProvisioningDeviceClient.create(ready.device_host, ready.id_scope, transport, security);
  const state = await device.register();
  assert.deepEqual([state.status, state.deviceId], ['assigned', 'device-9']);
}

async function hub(ready) {
  const { Registry } = require('azure-iothub');
  const registry = Registry.fromConnectionString(ready.hub_connection_string);
  const identity = (await registry.get('device-9')).responseBody;
  assert.equal(identity.authentication.type, 'selfSigned');
  await registry.delete('device-9');
  await refused('DeviceNotFoundError', () => registry.get('device-9'));
}

async function main(ready) {
  redirect(ready);
  const service = await enrollments(ready);
  const { Http } = require('azure-iot-provisioning-device-http');
  const { Mqtt } = require('azure-iot-provisioning-device-mqtt');
  await register(ready, new Http());
  await register(ready, new Mqtt());
  await hub(ready);
  await service.deleteIndividualEnrollment('press-9');
  console.log('node: done');
}

const child = spawn(program, ['--tls-dir', path.join(folder, 'tls'), '--retry-after', '1']);
child.stdout.once('data', async (line) => {
  let code = 0;
  try {
    await main(JSON.parse(line));
  } catch (error) {
    console.error(error);
    code = 1;
  }
  child.kill();
  process.exit(code);
});
