package keys

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/credentials"
)

// cluster is where the Secret with the master key is, with the rights of whoever runs the command.
type cluster struct {
	config    *rest.Config
	secrets   corev1client.SecretInterface
	namespace string
}

func (s *source) cluster() (*cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = s.kubeconfig

	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: s.context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster (or, to read a key, name a file with --key-file): %w", err)
	}

	config.Timeout = requestTimeout

	client, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make the client of the API server: %w", err)
	}

	namespace := cmp.Or(s.namespace, s.fallback)

	return &cluster{config: config, secrets: client.Secrets(namespace), namespace: namespace}, nil
}

func (c *cluster) masterKey(ctx context.Context) (*corev1.Secret, found, error) {
	name := c.namespace + "/" + contract.MasterKeySecret

	secret, err := c.secrets.Get(ctx, contract.MasterKeySecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, found{}, fmt.Errorf("Secret %s does not exist: it is made at the first backup, in Velero's namespace (--namespace)", name) //nolint:staticcheck // a kind's name
	}

	if err != nil {
		return nil, found{}, fmt.Errorf("read Secret %s: %w", name, err)
	}

	f, err := fromSecret(secret)
	f.namespace = c.namespace

	return secret, f, err
}

// left names what would be lost if the previous key were: the Repositories that aren't known to be
// under the given one alone, and the locations of which no Repository tells. What is in one of the
// given locations doesn't count.
func (c *cluster) left(ctx context.Context, key credentials.MasterKey, without []string) ([]string, error) {
	fingerprint, err := key.Fingerprint()
	if err != nil {
		return nil, fmt.Errorf("fingerprint of the master key: %w", err)
	}

	var (
		repositories v1alpha1.RepositoryList
		locations    velerov1.BackupStorageLocationList
		left         []string
	)

	if err := c.list(ctx, v1alpha1.SchemeGroupVersion.WithResource("repositories"), &repositories); err != nil {
		return nil, err
	}

	if err := c.list(ctx, velerov1.SchemeGroupVersion.WithResource("backupstoragelocations"), &locations); err != nil {
		return nil, err
	}

	told := slices.Clone(without)

	for i := range repositories.Items {
		r := &repositories.Items[i]

		if slices.Contains(without, r.Spec.BackupStorageLocation) {
			continue
		}

		told = append(told, r.Spec.BackupStorageLocation)

		if why := stays(r, fingerprint); why != "" {
			left = append(left, fmt.Sprintf("Repository %s (namespace %s, location %s): %s", r.Name, r.Spec.Namespace, r.Spec.BackupStorageLocation, why))
		}
	}

	for i := range locations.Items {
		if name := locations.Items[i].Name; !slices.Contains(told, name) {
			left = append(left, "BackupStorageLocation "+name+": nobody has looked whether it holds repositories")
		}
	}

	return left, nil
}

// stays returns why the repository is not known to be under the key alone; empty if it is.
func stays(r *v1alpha1.Repository, fingerprint string) string {
	current := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.ConditionKeyCurrent)

	switch {
	case current != nil && current.Status != metav1.ConditionTrue:
		return current.Reason + ": " + current.Message
	case current == nil || r.Status.KeyFingerprint != fingerprint:
		return "the controller has not looked at it yet (" + cmp.Or(r.Status.Reason, "no status") + ")"
	default:
		return ""
	}
}

func (c *cluster) list(ctx context.Context, what schema.GroupVersionResource, into any) error {
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make the client of the API server: %w", err)
	}

	found, err := client.Resource(what).Namespace(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list %s in namespace %s: %w", what.GroupResource(), c.namespace, err)
	}

	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found.UnstructuredContent(), into); err != nil {
		return fmt.Errorf("read the list of %s: %w", what.GroupResource(), err)
	}

	return nil
}

// write writes the keys into the Secret, as it was read.
func (c *cluster) write(ctx context.Context, secret *corev1.Secret, key, previous credentials.MasterKey) error {
	secret.Data[contract.MasterKeySecretKey] = key.Encode()
	delete(secret.Data, contract.MasterKeySecretPrevious)

	if !previous.IsZero() {
		secret.Data[contract.MasterKeySecretPrevious] = previous.Encode()
	}

	if secret.Labels == nil {
		secret.Labels = map[string]string{}
	}

	// A backup that holds its own key protects nothing.
	secret.Labels[contract.LabelExcludeFromBackup] = "true"

	// Whoever has changed it since it was read gets a conflict to see.
	if _, err := c.secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write Secret %s/%s: %w", c.namespace, contract.MasterKeySecret, err)
	}

	return nil
}
