// The common operations with the Go SDKs: go run . It prints each operation that has passed.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/batch/azbatch"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/batch/armbatch/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

var (
	ctx            = context.Background()
	group, account = os.Getenv("RESOURCE_GROUP"), os.Getenv("ACCOUNT")
)

func passed(operation string) { fmt.Println(operation) }

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func require(condition bool, format string, values ...any) {
	if !condition {
		log.Panicf(format, values...)
	}
}

// refused checks that err is the service's reply with this status, and that it has each text.
func refused(err error, status int, texts ...string) {
	var response *azcore.ResponseError
	require(errors.As(err, &response) && response.StatusCode == status, "expected %d, not %v", status, err)
	for _, text := range texts {
		require(strings.Contains(err.Error(), text), "no %q in %v", text, err)
	}
}

func signIn() azcore.TokenCredential {
	scope := policy.TokenRequestOptions{Scopes: []string{"https://management.azure.com/.default"}}
	credential := must(azidentity.NewDefaultAzureCredential(nil))
	require(must(credential.GetToken(ctx, scope)).Token != "", "no token")
	passed("sign in")
	tenant, client := os.Getenv("AZURE_TENANT_ID"), os.Getenv("AZURE_CLIENT_ID")
	_, err := must(azidentity.NewClientSecretCredential(tenant, client, "wrong", nil)).GetToken(ctx, scope)
	require(err != nil && strings.Contains(err.Error(), "AADSTS7000215"), "expected AADSTS7000215, not %v", err)
	passed("sign in with a wrong secret")
	return credential
}

func accounts(credential azcore.TokenCredential) string {
	client := must(armbatch.NewAccountClient(os.Getenv("SUBSCRIPTION_ID"), credential, nil))
	count := 0
	for pager := client.NewListPager(nil); pager.More(); {
		count += len(must(pager.NextPage(ctx)).Value)
	}
	require(fmt.Sprint(count) == os.Getenv("ACCOUNTS"), "%d accounts", count)
	count = 0
	for pager := client.NewListByResourceGroupPager(group, nil); pager.More(); {
		count += len(must(pager.NextPage(ctx)).Value)
	}
	require(fmt.Sprint(count) == os.Getenv("ACCOUNTS"), "%d accounts in the group", count)
	passed("list accounts")
	got := must(client.Get(ctx, group, account, nil))
	require(*got.Properties.ProvisioningState == armbatch.ProvisioningStateSucceeded, "%v", *got.Properties.ProvisioningState)
	require(*got.Tags["team"] == "render", "tags")
	passed("get an account")
	before := must(client.GetKeys(ctx, group, account, nil))
	require(len(*before.Primary) == 88 && len(*before.Secondary) == 88, "length of the keys")
	passed("list keys")
	parameters := armbatch.AccountRegenerateKeyParameters{KeyName: to.Ptr(armbatch.AccountKeyTypePrimary)}
	after := must(client.RegenerateKey(ctx, group, account, parameters, nil))
	require(*after.Primary != *before.Primary && *after.Secondary == *before.Secondary, "wrong key regenerated")
	require(*must(client.GetKeys(ctx, group, account, nil)).Primary == *after.Primary, "the list has the old key")
	passed("regenerate a key")
	_, err := client.GetKeys(ctx, group, "denied", nil)
	refused(err, 403, "AuthorizationFailed", "listKeys/action")
	_, err = client.Get(ctx, group, "missing", nil)
	refused(err, 404, "ResourceNotFound")
	passed("a denied and a missing account")
	require(*must(client.GetKeys(ctx, group, "busy", nil)).Primary != "", "no key")
	passed("a throttled account")
	return *got.Properties.AccountEndpoint
}

func versionsOf(client *azsecrets.Client, name string) (count int) {
	for pager := client.NewListSecretPropertiesVersionsPager(name, nil); pager.More(); {
		count += len(must(pager.NextPage(ctx)).Value)
	}
	return count
}

func set(client *azsecrets.Client, value string, tags map[string]*string) azsecrets.SetSecretResponse {
	parameters := azsecrets.SetSecretParameters{Value: &value, Tags: tags, ContentType: to.Ptr("text/plain")}
	return must(client.SetSecret(ctx, "alpha", parameters, nil))
}

func value(client *azsecrets.Client, name, version string) string {
	return *must(client.GetSecret(ctx, name, version, nil)).Value
}

// eventually repeats a call until it succeeds, since deletion and recovery take some time.
func eventually(call func() error) {
	err := call()
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); err = call() {
		time.Sleep(500 * time.Millisecond)
	}
	check(err)
}

func secrets(credential azcore.TokenCredential) {
	client := must(azsecrets.NewClient(os.Getenv("VAULT_URL"), credential, nil))
	first := set(client, "one", map[string]*string{"a": to.Ptr("b")})
	require(first.ID.Name() == "alpha" && *first.Value == "one" && *first.Tags["a"] == "b", "%v", first.ID)
	passed("set a secret")
	second := set(client, "two", nil)
	require(second.ID.Version() != first.ID.Version(), "the same version")
	require(value(client, "alpha", "") == "two" && value(client, "alpha", first.ID.Version()) == "one", "wrong value")
	_, err := client.GetSecret(ctx, "missing", "", nil)
	refused(err, 404, "SecretNotFound")
	passed("get a secret")
	count := 0
	for pager := client.NewListSecretPropertiesPager(nil); pager.More(); {
		count += len(must(pager.NextPage(ctx)).Value)
	}
	require(fmt.Sprint(count-1) == os.Getenv("SECRETS"), "%d secrets", count)
	passed("list secrets")
	require(versionsOf(client, "alpha") == 2, "versions")
	passed("list versions")
	update := azsecrets.UpdateSecretPropertiesParameters{
		SecretAttributes: &azsecrets.SecretAttributes{Enabled: to.Ptr(false)}, Tags: map[string]*string{"c": to.Ptr("d")},
	}
	updated := must(client.UpdateSecretProperties(ctx, "alpha", "", update, nil))
	require(!*updated.Attributes.Enabled && *updated.Tags["c"] == "d", "not updated")
	_, err = client.GetSecret(ctx, "alpha", "", nil)
	refused(err, 403, "disabled secret")
	update.SecretAttributes.Enabled = to.Ptr(true)
	must(client.UpdateSecretProperties(ctx, "alpha", "", update, nil))
	passed("update a secret")
	lifeCycle(client)
	require(value(client, "busy", "") == "calm", "wrong value")
	passed("a throttled secret")
	other := must(azsecrets.NewClient(os.Getenv("DENIED_VAULT_URL"), credential, nil))
	_, err = other.GetSecret(ctx, "alpha", "", nil)
	refused(err, 403, "Forbidden", "is not authorized to perform action")
	passed("a denied secret")
}

func lifeCycle(client *azsecrets.Client) {
	backup := must(client.BackupSecret(ctx, "alpha", nil))
	passed("back up a secret")
	remove := func() {
		must(client.DeleteSecret(ctx, "alpha", nil))
		eventually(func() error { _, err := client.GetDeletedSecret(ctx, "alpha", nil); return err })
	}
	remove()
	count := 0
	for pager := client.NewListDeletedSecretPropertiesPager(nil); pager.More(); {
		count += len(must(pager.NextPage(ctx)).Value)
	}
	require(count == 1, "%d deleted secrets", count)
	_, err := client.SetSecret(ctx, "alpha", azsecrets.SetSecretParameters{Value: to.Ptr("three")}, nil)
	refused(err, 409, "ObjectIsDeletedButRecoverable")
	passed("delete a secret")
	must(client.RecoverDeletedSecret(ctx, "alpha", nil))
	eventually(func() error { _, err := client.GetSecret(ctx, "alpha", "", nil); return err })
	require(value(client, "alpha", "") == "two", "wrong value")
	passed("recover a secret")
	remove()
	must(client.PurgeDeletedSecret(ctx, "alpha", nil))
	passed("purge a secret")
	eventually(func() error {
		_, err := client.RestoreSecret(ctx, azsecrets.RestoreSecretParameters{SecretBackup: backup.Value}, nil)
		return err
	})
	require(value(client, "alpha", "") == "two" && versionsOf(client, "alpha") == 2, "wrong versions")
	passed("restore a secret")
}

func dataPlane(credential azcore.TokenCredential, endpoint string) {
	client := must(azbatch.NewClient("https://"+endpoint, credential, &azbatch.ClientOptions{}))
	count := 0
	for pager := client.NewListSupportedImagesPager(nil); pager.More(); {
		count += len(must(pager.NextPage(ctx)).Value)
	}
	require(count > 0, "no image")
	passed("use Batch with a token")
}

func main() {
	credential := signIn()
	endpoint := accounts(credential)
	secrets(credential)
	dataPlane(credential, endpoint)
}
