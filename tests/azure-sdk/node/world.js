"use strict";
// Shared by the suites: the world that `run` made, certificates made by openssl, and the emulator's
// control address.

const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const world = JSON.parse(fs.readFileSync(process.env.AZURE_SDK_WORLD, "utf8"));

/** Key and chain that the daemon issued: what a device presents. */
function issued(name) {
  const read = (ending) => fs.readFileSync(path.join(world.devices, name + ending), "utf8");
  return { cert: read(".pem"), key: read(".key") };
}

/** The leaf alone, without the chain behind it. */
function leafOf(chain) {
  return chain.slice(0, chain.indexOf("-----END") + "-----END CERTIFICATE-----\n".length);
}

/** A self-signed certificate with this common name and its key. */
function selfSigned(commonName, { authority = false } = {}) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "azure-sdk-"));
  const [key, cert] = ["key", "cert"].map((name) => path.join(folder, name));
  try {
    execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
        .concat(["-subj", `/CN=${commonName}`, "-keyout", key, "-out", cert])
        .concat(["-addext", `basicConstraints=critical,CA:${authority ? "TRUE" : "FALSE"}`]),
      { stdio: "ignore" },
    );
    return { cert: fs.readFileSync(cert, "utf8"), key: fs.readFileSync(key, "utf8") };
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

/** Ask the emulator's control address. */
async function control(method, address, body) {
  const options = { method, headers: { "content-type": "application/json" } };
  if (body !== undefined) options.body = JSON.stringify(body);
  const answer = await fetch(world.control_url + address, options);
  if (!answer.ok) throw new Error(`${method} ${address}: ${answer.status} ${await answer.text()}`);
  return answer;
}

/** Let the next request of an operation fail with this status. */
function failNext(operation, status) {
  return control("POST", "/faults", { aim: { operation }, action: { kind: "status", status } });
}

/** All items of a query of the provisioning service, with each page's size. */
async function pages(query) {
  const sizes = [];
  const items = [];
  let token;
  do {
    // Without a token as its argument, `next` fetches the first page for ever.
    const page = await query.next(token);
    sizes.push(page.responseBody.length);
    items.push(...page.responseBody);
    token = query.continuationToken;
  } while (query.hasMoreResults);
  return { items, sizes };
}

const individual = (registrationId, cert, more = {}) => ({
  registrationId,
  attestation: { type: "x509", x509: { clientCertificates: { primary: { certificate: cert } } } },
  ...more,
});

const group = (enrollmentGroupId, cert, more = {}) => ({
  enrollmentGroupId,
  attestation: { type: "x509", x509: { signingCertificates: { primary: { certificate: cert } } } },
  ...more,
});

/** What a rejected promise was rejected with. */
async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("this was expected to be refused");
}

module.exports = { world, issued, leafOf, selfSigned, control, failNext, pages, individual, group, refusal };
