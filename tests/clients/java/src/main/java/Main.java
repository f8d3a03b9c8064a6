import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.core.exception.HttpResponseException;
import com.azure.core.management.AzureEnvironment;
import com.azure.core.management.profile.AzureProfile;
import com.azure.identity.ClientSecretCredentialBuilder;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.resourcemanager.batch.BatchManager;
import com.azure.resourcemanager.batch.models.AccountKeyType;
import com.azure.resourcemanager.batch.models.BatchAccount;
import com.azure.resourcemanager.batch.models.BatchAccountKeys;
import com.azure.resourcemanager.batch.models.BatchAccountRegenerateKeyParameters;
import com.azure.resourcemanager.batch.models.BatchAccounts;
import com.azure.resourcemanager.batch.models.ProvisioningState;
import com.azure.security.keyvault.secrets.SecretClient;
import com.azure.security.keyvault.secrets.SecretClientBuilder;
import com.azure.security.keyvault.secrets.models.KeyVaultSecret;
import com.azure.security.keyvault.secrets.models.SecretProperties;
import java.util.List;
import java.util.Map;

/** The common operations with the Java SDKs. It prints each operation that has passed. */
public final class Main {
    private static final String GROUP = System.getenv("RESOURCE_GROUP");
    private static final String ACCOUNT = System.getenv("ACCOUNT");
    private static final long ACCOUNTS = Long.parseLong(System.getenv("ACCOUNTS"));
    private static final long SECRETS = Long.parseLong(System.getenv("SECRETS"));

    private Main() {}

    private static void passed(String operation) {
        System.out.println(operation);
    }

    private static void require(boolean condition, Object detail) {
        if (!condition) {
            throw new AssertionError(detail);
        }
    }

    /** The call is refused with this status, and its message has each text. */
    private static void refused(Runnable call, int status, String... texts) {
        try {
            call.run();
        } catch (HttpResponseException error) {
            require(error.getResponse().getStatusCode() == status, error);
            for (String text : texts) {
                require(error.getMessage().contains(text), "no " + text + " in " + error.getMessage());
            }
            return;
        }
        throw new AssertionError("expected status " + status);
    }

    private static TokenCredential signIn() {
        TokenRequestContext scope = new TokenRequestContext().addScopes("https://management.azure.com/.default");
        TokenCredential credential = new DefaultAzureCredentialBuilder().build();
        require(!credential.getTokenSync(scope).getToken().isEmpty(), "no token");
        passed("sign in");
        TokenCredential wrong = new ClientSecretCredentialBuilder()
            .tenantId(System.getenv("AZURE_TENANT_ID"))
            .clientId(System.getenv("AZURE_CLIENT_ID"))
            .clientSecret("wrong")
            .build();
        try {
            wrong.getTokenSync(scope);
            throw new AssertionError("expected a refusal");
        } catch (RuntimeException error) {
            require(error.getMessage().contains("AADSTS7000215"), error);
        }
        passed("sign in with a wrong secret");
        return credential;
    }

    private static void accounts(TokenCredential credential) {
        AzureProfile profile = new AzureProfile(
            System.getenv("AZURE_TENANT_ID"), System.getenv("SUBSCRIPTION_ID"), AzureEnvironment.AZURE);
        BatchAccounts client = BatchManager.authenticate(credential, profile).batchAccounts();
        require(client.list().stream().count() == ACCOUNTS, "accounts");
        require(client.listByResourceGroup(GROUP).stream().count() == ACCOUNTS, "accounts of the group");
        passed("list accounts");
        BatchAccount account = client.getByResourceGroup(GROUP, ACCOUNT);
        require(account.provisioningState() == ProvisioningState.SUCCEEDED, account.provisioningState());
        require(account.tags().equals(Map.of("team", "render")), account.tags());
        passed("get an account");
        BatchAccountKeys before = client.getKeys(GROUP, ACCOUNT);
        require(before.primary().length() == 88 && before.secondary().length() == 88, "length of the keys");
        passed("list keys");
        BatchAccountKeys after = client.regenerateKey(
            GROUP, ACCOUNT, new BatchAccountRegenerateKeyParameters().withKeyName(AccountKeyType.PRIMARY));
        require(!after.primary().equals(before.primary()), "not regenerated");
        require(after.secondary().equals(before.secondary()), "the other key regenerated");
        require(client.getKeys(GROUP, ACCOUNT).primary().equals(after.primary()), "the list has the old key");
        passed("regenerate a key");
        refused(() -> client.getKeys(GROUP, "denied"), 403, "AuthorizationFailed", "listKeys/action");
        refused(() -> client.getByResourceGroup(GROUP, "missing"), 404, "ResourceNotFound");
        passed("a denied and a missing account");
        require(!client.getKeys(GROUP, "busy").primary().isEmpty(), "no key");
        passed("a throttled account");
    }

    private static SecretClient secretClient(TokenCredential credential, String url) {
        return new SecretClientBuilder().vaultUrl(url).credential(credential).buildClient();
    }

    private static void secrets(TokenCredential credential) {
        SecretClient client = secretClient(credential, System.getenv("VAULT_URL"));
        KeyVaultSecret first = client.setSecret(new KeyVaultSecret("alpha", "one")
            .setProperties(new SecretProperties().setTags(Map.of("a", "b")).setContentType("text/plain")));
        require(first.getName().equals("alpha") && first.getValue().equals("one"), "the secret");
        require(first.getProperties().getTags().equals(Map.of("a", "b")), first.getProperties().getTags());
        passed("set a secret");
        client.setSecret("alpha", "two");
        require(client.getSecret("alpha").getValue().equals("two"), "the latest version");
        require(client.getSecret("alpha", first.getProperties().getVersion()).getValue().equals("one"), "a version");
        refused(() -> client.getSecret("missing"), 404, "SecretNotFound");
        passed("get a secret");
        require(client.listPropertiesOfSecrets().stream().count() == SECRETS + 1, "secrets");
        passed("list secrets");
        require(client.listPropertiesOfSecretVersions("alpha").stream().count() == 2, "versions");
        passed("list versions");
        SecretProperties properties = client.getSecret("alpha").getProperties();
        SecretProperties updated =
            client.updateSecretProperties(properties.setEnabled(false).setTags(Map.of("c", "d")));
        require(!updated.isEnabled() && updated.getTags().equals(Map.of("c", "d")), "not updated");
        refused(() -> client.getSecret("alpha"), 403, "disabled secret");
        client.updateSecretProperties(updated.setEnabled(true));
        passed("update a secret");
        lifeCycle(client);
        require(client.getSecret("busy").getValue().equals("calm"), "the value");
        passed("a throttled secret");
        SecretClient other = secretClient(credential, System.getenv("DENIED_VAULT_URL"));
        refused(() -> other.getSecret("alpha"), 403, "Forbidden", "is not authorized to perform action");
        passed("a denied secret");
    }

    private static void lifeCycle(SecretClient client) {
        byte[] backup = client.backupSecret("alpha");
        passed("back up a secret");
        client.beginDeleteSecret("alpha").waitForCompletion();
        List<String> deleted = client.listDeletedSecrets().stream().map(KeyVaultSecret::getName).toList();
        require(deleted.equals(List.of("alpha")), deleted);
        refused(() -> client.setSecret("alpha", "three"), 409, "ObjectIsDeletedButRecoverable");
        passed("delete a secret");
        client.beginRecoverDeletedSecret("alpha").waitForCompletion();
        require(client.getSecret("alpha").getValue().equals("two"), "the value");
        passed("recover a secret");
        client.beginDeleteSecret("alpha").waitForCompletion();
        client.purgeDeletedSecret("alpha");
        passed("purge a secret");
        client.restoreSecretBackup(backup);
        require(client.getSecret("alpha").getValue().equals("two"), "the value");
        require(client.listPropertiesOfSecretVersions("alpha").stream().count() == 2, "versions");
        passed("restore a secret");
    }

    /** Runs the operations. The exit also ends the threads that the SDKs leave. */
    public static void main(String[] arguments) {
        try {
            TokenCredential credential = signIn();
            accounts(credential);
            secrets(credential);
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1);
        }
        System.exit(0);
    }
}
