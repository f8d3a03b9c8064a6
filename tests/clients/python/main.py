"""The common operations with the Python SDKs, old and new: `python main.py`. Prints each operation that has passed."""

# ruff: noqa: T201  # a program that prints and asserts

import os

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential, DefaultAzureCredential
from azure.keyvault.secrets import SecretClient
from azure.mgmt.batch import BatchManagementClient

GROUP, ACCOUNT = os.environ["RESOURCE_GROUP"], os.environ["ACCOUNT"]


def passed(operation):
    print(operation, flush=True)


def refused(call, kind, *texts):
    """The call raises `kind`, and its message has each text."""
    message = None
    try:
        call()
    except kind as error:
        message = str(error)
    assert message is not None, f"expected {kind}"
    assert [text for text in texts if text not in message] == [], message


def sign_in():
    credential = DefaultAzureCredential()
    assert credential.get_token("https://management.azure.com/.default").token
    passed("sign in")
    wrong = ClientSecretCredential(os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], "wrong")
    refused(
        lambda: wrong.get_token("https://management.azure.com/.default"), ClientAuthenticationError, "AADSTS7000215"
    )
    passed("sign in with a wrong secret")
    return credential


def accounts(credential):
    accounts = BatchManagementClient(credential, os.environ["SUBSCRIPTION_ID"]).batch_account
    names = [account.name for account in accounts.list()]
    assert len(names) == int(os.environ["ACCOUNTS"]), names
    assert ACCOUNT in [account.name for account in accounts.list_by_resource_group(GROUP)]
    passed("list accounts")
    account = accounts.get(GROUP, ACCOUNT)
    assert account.provisioning_state == "Succeeded"
    assert account.tags == {"team": "render"}
    passed("get an account")
    before = accounts.get_keys(GROUP, ACCOUNT)
    assert len(before.primary) == len(before.secondary) == 88
    passed("list keys")
    after = accounts.regenerate_key(GROUP, ACCOUNT, {"keyName": "Primary"})
    assert after.primary != before.primary
    assert after.secondary == before.secondary
    assert accounts.get_keys(GROUP, ACCOUNT).primary == after.primary
    passed("regenerate a key")
    refused(lambda: accounts.get_keys(GROUP, "denied"), HttpResponseError, "AuthorizationFailed", "listKeys/action")
    refused(lambda: accounts.get(GROUP, "missing"), ResourceNotFoundError, "ResourceNotFound")
    passed("a denied and a missing account")
    assert accounts.get_keys(GROUP, "busy").primary
    passed("a throttled account")
    return account.account_endpoint, after.primary


def secrets(credential):
    client = SecretClient(os.environ["VAULT_URL"], credential)
    first = client.set_secret("alpha", "one", tags={"a": "b"}, content_type="text/plain")
    assert (first.name, first.value, first.properties.tags) == ("alpha", "one", {"a": "b"})
    passed("set a secret")
    second = client.set_secret("alpha", "two")
    assert client.get_secret("alpha").value == "two"
    assert client.get_secret("alpha", first.properties.version).value == "one"
    refused(lambda: client.get_secret("missing"), ResourceNotFoundError, "SecretNotFound")
    passed("get a secret")
    assert len(list(client.list_properties_of_secrets())) == int(os.environ["SECRETS"]) + 1
    passed("list secrets")
    versions = {properties.version for properties in client.list_properties_of_secret_versions("alpha")}
    assert versions == {first.properties.version, second.properties.version}
    passed("list versions")
    updated = client.update_secret_properties("alpha", enabled=False, tags={"c": "d"})
    assert (updated.enabled, updated.tags) == (False, {"c": "d"})
    refused(lambda: client.get_secret("alpha"), HttpResponseError, "disabled secret")
    client.update_secret_properties("alpha", enabled=True)
    passed("update a secret")
    backup = client.backup_secret("alpha")
    passed("back up a secret")
    deleted = client.begin_delete_secret("alpha")
    deleted.wait()
    assert deleted.result().name == client.get_deleted_secret("alpha").name == "alpha"
    assert [secret.name for secret in client.list_deleted_secrets()] == ["alpha"]
    refused(lambda: client.set_secret("alpha", "three"), HttpResponseError, "ObjectIsDeletedButRecoverable")
    passed("delete a secret")
    client.begin_recover_deleted_secret("alpha").wait()
    assert client.get_secret("alpha").value == "two"
    passed("recover a secret")
    client.begin_delete_secret("alpha").wait()
    client.purge_deleted_secret("alpha")
    passed("purge a secret")
    client.restore_secret_backup(backup)
    assert client.get_secret("alpha").value == "two"
    assert len(list(client.list_properties_of_secret_versions("alpha"))) == len(versions)
    passed("restore a secret")
    assert client.get_secret("busy").value == "calm"
    passed("a throttled secret")
    other = SecretClient(os.environ["DENIED_VAULT_URL"], credential)
    refused(lambda: other.get_secret("alpha"), HttpResponseError, "Forbidden", "is not authorized to perform action")
    passed("a denied secret")


def data_plane(credential, endpoint, key):
    # The old clients have neither.
    from azure.batch import BatchClient  # noqa: PLC0415  # as above
    from azure.core.credentials import AzureNamedKeyCredential  # noqa: PLC0415  # as above

    refused(
        lambda: list(BatchClient(f"https://{endpoint}", AzureNamedKeyCredential(ACCOUNT, "d3Jvbmc=")).list_pools()),
        HttpResponseError,
        "AuthenticationFailed",
    )
    assert list(BatchClient(f"https://{endpoint}", AzureNamedKeyCredential(ACCOUNT, key)).list_supported_images())
    passed("use Batch with a key")
    assert list(BatchClient(f"https://{endpoint}", credential).list_supported_images())
    passed("use Batch with a token")


def main():
    credential = sign_in()
    endpoint, key = accounts(credential)
    secrets(credential)
    if os.environ.get("DATA_PLANE"):
        data_plane(credential, endpoint, key)


main()
