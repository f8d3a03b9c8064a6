#!/usr/bin/env bash
# An identity for keysync on a Kubernetes cluster of Azure (AKS), without a secret: bash workload-identity.sh
#
# It makes a user-assigned identity, lets a service account of the cluster sign in as it, and gives it the roles that the
# configuration needs (`keysync role`). It can be run again. Sign in with az as a user who may create identities in
# RESOURCE_GROUP, and roles for the accounts and vaults. The cluster needs its OIDC issuer and workload
# identity:  az aks update --name CLUSTER --resource-group GROUP --enable-oidc-issuer --enable-workload-identity
#
#   RESOURCE_GROUP     the resource group of the identity; required
#   CLUSTER            the name of the cluster; required
#   CLUSTER_GROUP      its resource group, unless it is RESOURCE_GROUP
#   LOCATION           of the identity; default: that of its group
#   IDENTITY           its name (keysync)
#   NAMESPACE, SERVICE_ACCOUNT   the service account that signs in as it (default, keysync)
#   AUDIENCE           api://AzureADTokenExchange; in US Government …USGov, in China …China at its end
#   CONFIG             the configuration, with `credential: {type: workload_identity}` (keysync.yaml)
#   ROLES              the file for the script that makes the roles (keysync-roles.sh)
set -euo pipefail

: "${RESOURCE_GROUP:?the resource group for the identity}" "${CLUSTER:?the name of the AKS cluster}"
CLUSTER_GROUP="${CLUSTER_GROUP:-$RESOURCE_GROUP}"
IDENTITY="${IDENTITY:-keysync}"
NAMESPACE="${NAMESPACE:-default}"
SERVICE_ACCOUNT="${SERVICE_ACCOUNT:-keysync}"
AUDIENCE="${AUDIENCE:-api://AzureADTokenExchange}"
CONFIG="${CONFIG:-keysync.yaml}"
ROLES="${ROLES:-keysync-roles.sh}"

# The identity
az identity create --name "$IDENTITY" --resource-group "$RESOURCE_GROUP" ${LOCATION:+--location "$LOCATION"} --output none
client_id="$(az identity show --name "$IDENTITY" --resource-group "$RESOURCE_GROUP" --query clientId --output tsv)"
principal_id="$(az identity show --name "$IDENTITY" --resource-group "$RESOURCE_GROUP" --query principalId --output tsv)"

# Only one service account of one cluster may sign in as it
issuer="$(az aks show --name "$CLUSTER" --resource-group "$CLUSTER_GROUP" --query oidcIssuerProfile.issuerUrl --output tsv)"
if [[ -z $issuer || $issuer == None ]]; then
    echo "$CLUSTER has no OIDC issuer: az aks update --enable-oidc-issuer --enable-workload-identity" >&2
    exit 1
fi
az identity federated-credential create --name keysync --identity-name "$IDENTITY" --resource-group "$RESOURCE_GROUP" \
    --issuer "$issuer" --subject "system:serviceaccount:$NAMESPACE:$SERVICE_ACCOUNT" --audiences "$AUDIENCE" --output none

# Its roles
keysync role -c "$CONFIG" --principal-id "$principal_id" >"$ROLES"
sh "$ROLES"

echo "$client_id is the client id for the annotation azure.workload.identity/client-id of the service account"
