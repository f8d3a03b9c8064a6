// Validates recorded pairs of requests and responses against Azure's public descriptions:
//   node validate.mjs PAIRS SPECS
// PAIRS is the file of `check.py --record`, SPECS a checkout of the public repository azure-rest-api-specs.
//
// Only pairs about Batch accounts and about secrets are validated. If the checkout does not have the version of a pair, the
// pair is validated as the nearest version that it has. Ends with 1 if there is a violation, or if nothing was validated.

import { readFileSync } from "node:fs";

import { LiveValidator } from "oav";

const BATCH = "microsoft.batch";
const SECRETS = "microsoft.unknown"; // oav's name for operations that are of no resource provider
const SWAGGERS = [
  "specification/batch/resource-manager/**/Microsoft.Batch/**/*.json",
  "specification/keyvault/data-plane/**/secrets.json",
];
const NOT_AUTHENTICATED = "401"; // challenges are described nowhere

/** The provider that describes a request; undefined if none does. */
function providerOf({ url }) {
  if (/^\/subscriptions\/.*\/providers\/Microsoft\.Batch\/batchAccounts/i.test(url)) return BATCH;
  return /^\/(deleted)?secrets[/?]/i.test(url) ? SECRETS : undefined;
}

/** A version as numbers, for comparison: 7.4 is before 2025-07-01. */
const numbers = (version) => version.split(/[.-]/).map(Number);

function compare(one, other) {
  const [a, b] = [numbers(one), numbers(other)];
  return a.map((number, index) => number - (b[index] ?? 0)).find((difference) => difference !== 0) ?? 0;
}

/** The newest of `versions` that is not after `version`, else the oldest. */
function nearest(version, versions) {
  const sorted = [...versions].sort(compare);
  return sorted.filter((each) => compare(each, version) <= 0).at(-1) ?? sorted[0];
}

/** A pair as oav can match it: in `version`, and with a version of the secret where the client asks for the latest one. */
function forOav({ liveRequest: request, liveResponse }, version) {
  const [path, query] = request.url.split("?");
  const isLatest = ["GET", "PATCH"].includes(request.method) && /^\/secrets\/[^/]+\/?$/.test(path);
  const url = `${isLatest ? `${path.replace(/\/$/, "")}/latest` : path}?${query}`.replace(
    `api-version=${request.query["api-version"]}`,
    `api-version=${version}`,
  );
  return { liveRequest: { ...request, url, query: { ...request.query, "api-version": version } }, liveResponse };
}

async function validatorOf(directory) {
  const options = { directory, git: { shouldClone: false }, isPathCaseSensitive: false, loadValidatorInInitialize: true };
  const paths = { swaggerPathsPattern: SWAGGERS, excludedSwaggerPathsPattern: ["**/examples/**"] };
  const validator = new LiveValidator({ ...options, ...paths }, (message, level) => {
    if (level === "error" && !message.startsWith("ErrorMessage:")) console.error(message);
  });
  await validator.initialize();
  return validator;
}

/** The problems of a pair. oav reads `/secrets/NAME/versions` also as the version `versions`, unless GetSecret is unknown. */
async function validate(validator, pair, operations) {
  const known = operations.get("get");
  if (/^\/secrets\/[^/]+\/versions\?/.test(pair.liveRequest.url)) {
    operations.set("get", known.filter((operation) => operation.operationId !== "GetSecret"));
  }
  try {
    return problems(await validator.validateLiveRequestResponse(pair));
  } finally {
    operations.set("get", known);
  }
}

function problems({ requestValidationResult: request, responseValidationResult: response, runtimeException }) {
  const exceptions = [runtimeException, request.runtimeException, response.runtimeException].filter(Boolean);
  return [...exceptions, ...request.errors, ...response.errors].map(({ code, message }) => `${code}: ${message}`);
}

async function main(pairsFile, specs) {
  const validator = await validatorOf(specs);
  const known = validator.operationSearcher.cache;
  const counts = {};
  let violations = 0;
  for (const pair of JSON.parse(readFileSync(pairsFile, "utf8"))) {
    const provider = providerOf(pair.liveRequest);
    if (provider === undefined || pair.liveResponse.statusCode === NOT_AUTHENTICATED) continue;
    if (!known.has(provider)) throw new Error(`${specs} does not describe ${provider}`);
    const version = pair.liveRequest.query["api-version"];
    const taken = nearest(version, known.get(provider).keys());
    const label = version === taken ? version : `${version} as ${taken}`;
    counts[label] = (counts[label] ?? 0) + 1;
    const found = await validate(validator, forOav(pair, taken), known.get(provider).get(taken));
    violations += found.length;
    for (const problem of found) {
      console.log(`${pair.liveRequest.method} ${pair.liveRequest.url} ${pair.liveResponse.statusCode}: ${problem}`);
    }
  }
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  for (const [label, count] of Object.entries(counts)) console.log(`${count} pairs of ${label}`);
  console.log(`${total} pairs validated, ${violations} violations`);
  return total > 0 && violations === 0 ? 0 : 1;
}

const [pairsFile, specs] = process.argv.slice(2);
if (specs === undefined) {
  console.error("expected: node validate.mjs PAIRS SPECS");
  process.exit(2);
}
process.exit(await main(pairsFile, specs));
