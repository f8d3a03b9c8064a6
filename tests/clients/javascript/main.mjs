// The common operations with the JavaScript SDKs: node main.mjs. It prints each operation that has passed.

import assert from "node:assert/strict";

import { BatchManagementClient } from "@azure/arm-batch";
import { BatchServiceClient, BatchSharedKeyCredentials } from "@azure/batch";
import { ClientSecretCredential, DefaultAzureCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";
import { TokenCredentials } from "@azure/ms-rest-js";

const { ACCOUNT, RESOURCE_GROUP, SUBSCRIPTION_ID, VAULT_URL, DENIED_VAULT_URL } = process.env;
const ACCOUNTS = Number(process.env.ACCOUNTS);
const SECRETS = Number(process.env.SECRETS);

const passed = (operation) => console.log(operation);

async function all(pages) {
  const items = [];
  for await (const item of pages) items.push(item);
  return items;
}

/** The call is refused with this status, and its message has each text. */
async function refused(call, status, ...texts) {
  await assert.rejects(call, (error) => {
    assert.equal(error.statusCode, status, error.message);
    const found = `${error.code} ${error.message} ${JSON.stringify(error.details ?? error.body ?? {})}`;
    for (const text of texts) assert.ok(found.includes(text), `no ${text} in ${found}`);
    return true;
  });
}

async function signIn() {
  const scope = "https://management.azure.com/.default";
  const credential = new DefaultAzureCredential();
  assert.ok((await credential.getToken(scope)).token);
  passed("sign in");
  const { AZURE_TENANT_ID, AZURE_CLIENT_ID } = process.env;
  const wrong = new ClientSecretCredential(AZURE_TENANT_ID, AZURE_CLIENT_ID, "wrong");
  await assert.rejects(wrong.getToken(scope), /AADSTS7000215/);
  passed("sign in with a wrong secret");
  return credential;
}

async function accounts(credential) {
  const client = new BatchManagementClient(credential, SUBSCRIPTION_ID).batchAccountOperations;
  assert.equal((await all(client.list())).length, ACCOUNTS);
  assert.equal((await all(client.listByResourceGroup(RESOURCE_GROUP))).length, ACCOUNTS);
  passed("list accounts");
  const account = await client.get(RESOURCE_GROUP, ACCOUNT);
  assert.equal(account.provisioningState, "Succeeded");
  assert.deepEqual(account.tags, { team: "render" });
  passed("get an account");
  const before = await client.getKeys(RESOURCE_GROUP, ACCOUNT);
  assert.deepEqual([before.primary.length, before.secondary.length], [88, 88]);
  passed("list keys");
  const after = await client.regenerateKey(RESOURCE_GROUP, ACCOUNT, { keyName: "Primary" });
  assert.notEqual(after.primary, before.primary);
  assert.equal(after.secondary, before.secondary);
  assert.equal((await client.getKeys(RESOURCE_GROUP, ACCOUNT)).primary, after.primary);
  passed("regenerate a key");
  await refused(client.getKeys(RESOURCE_GROUP, "denied"), 403, "AuthorizationFailed", "listKeys/action");
  await refused(client.get(RESOURCE_GROUP, "missing"), 404, "ResourceNotFound");
  passed("a denied and a missing account");
  assert.ok((await client.getKeys(RESOURCE_GROUP, "busy")).primary);
  passed("a throttled account");
  return [`https://${account.accountEndpoint}`, after.primary];
}

async function secrets(credential) {
  const client = new SecretClient(VAULT_URL, credential);
  const first = await client.setSecret("alpha", "one", { tags: { a: "b" }, contentType: "text/plain" });
  assert.deepEqual([first.name, first.value, first.properties.tags], ["alpha", "one", { a: "b" }]);
  passed("set a secret");
  const second = await client.setSecret("alpha", "two");
  assert.equal((await client.getSecret("alpha")).value, "two");
  assert.equal((await client.getSecret("alpha", { version: first.properties.version })).value, "one");
  await refused(client.getSecret("missing"), 404, "SecretNotFound");
  passed("get a secret");
  assert.equal((await all(client.listPropertiesOfSecrets())).length, SECRETS + 1);
  passed("list secrets");
  const versions = (await all(client.listPropertiesOfSecretVersions("alpha"))).map((item) => item.version);
  assert.deepEqual(versions.sort(), [first.properties.version, second.properties.version].sort());
  passed("list versions");
  const { version } = second.properties;
  const updated = await client.updateSecretProperties("alpha", version, { enabled: false, tags: { c: "d" } });
  assert.deepEqual([updated.enabled, updated.tags], [false, { c: "d" }]);
  await refused(client.getSecret("alpha"), 403, "disabled secret");
  await client.updateSecretProperties("alpha", version, { enabled: true });
  passed("update a secret");
  const backup = await client.backupSecret("alpha");
  passed("back up a secret");
  await (await client.beginDeleteSecret("alpha")).pollUntilDone();
  assert.deepEqual((await all(client.listDeletedSecrets())).map((item) => item.name), ["alpha"]);
  await refused(client.setSecret("alpha", "three"), 409, "ObjectIsDeletedButRecoverable");
  passed("delete a secret");
  await (await client.beginRecoverDeletedSecret("alpha")).pollUntilDone();
  assert.equal((await client.getSecret("alpha")).value, "two");
  passed("recover a secret");
  await (await client.beginDeleteSecret("alpha")).pollUntilDone();
  await client.purgeDeletedSecret("alpha");
  passed("purge a secret");
  await client.restoreSecretBackup(backup);
  assert.equal((await client.getSecret("alpha")).value, "two");
  assert.equal((await all(client.listPropertiesOfSecretVersions("alpha"))).length, 2);
  passed("restore a secret");
  assert.equal((await client.getSecret("busy")).value, "calm");
  passed("a throttled secret");
  const other = new SecretClient(DENIED_VAULT_URL, credential);
  await refused(other.getSecret("alpha"), 403, "Forbidden", "is not authorized to perform action");
  passed("a denied secret");
}

async function dataPlane(credential, endpoint, key) {
  const wrong = new BatchServiceClient(new BatchSharedKeyCredentials(ACCOUNT, "d3Jvbmc="), endpoint);
  await refused(wrong.pool.list(), 403, "AuthenticationFailed");
  const byKey = new BatchServiceClient(new BatchSharedKeyCredentials(ACCOUNT, key), endpoint);
  assert.ok((await byKey.account.listSupportedImages()).length > 0);
  passed("use Batch with a key");
  // The audience of Batch ends with a slash.
  const { token } = await credential.getToken("https://batch.core.windows.net//.default");
  const byToken = new BatchServiceClient(new TokenCredentials(token), endpoint);
  assert.ok((await byToken.account.listSupportedImages()).length > 0);
  passed("use Batch with a token");
}

const credential = await signIn();
const [endpoint, key] = await accounts(credential);
await secrets(credential);
await dataPlane(credential, endpoint, key);
