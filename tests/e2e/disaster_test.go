//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

func TestTheBucketAndTheKeyAreEnough(t *testing.T) {
	c := open(t)
	a, pod := c.app(classDelete, lab.Data{Files: 100, Bytes: 4 << 20, Seed: 5})
	kept := c.keep(a, pod)
	c.backup(c.namespace)

	repositories, err := c.Repositories(c.ctx, c.namespace)
	require.NoError(t, err)
	require.Len(t, repositories, 1)
	c.deleteNamespace()

	key := c.masterKey()
	c.wipe()

	fresh := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: key.Name, Labels: key.Labels},
		Data:       key.Data,
	}
	require.NoError(t, c.CreateNamespace(c.ctx, c.Namespace))
	require.NoError(t, c.Create(c.ctx, fresh))

	_, err = c.Run(c.ctx, "cluster", "reinstall")
	require.NoError(t, err)
	require.NoError(t, c.Wait(c.ctx, "Velero to find the backup in the bucket", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: c.namespace}, &velerov1.Backup{})

		return err == nil, client.IgnoreNotFound(err)
	}))

	c.restore(c.namespace, c.namespace)

	pod = c.pod(a)
	c.same(kept, a, pod)

	again := c.namespace + "-again"
	c.backup(again)
	c.completed(again, 2)

	found, err := c.Repositories(c.ctx, c.namespace)
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Equal(t, repositories[0].Status.ID, found[0].Status.ID, "the repository in the bucket must be found, not a second one made")
	assert.Equal(t, key.Data, c.masterKey().Data)
}

func (c *cell) masterKey() *corev1.Secret {
	c.t.Helper()

	var secret corev1.Secret
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: contract.MasterKeySecret}, &secret))

	return &secret
}

// wipe removes every object of Velero and Estiba, the cluster-wide ones too.
func (c *cell) wipe() {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	namespace := &corev1.Namespace{}
	namespace.Name = c.Namespace
	require.NoError(c.t, c.Delete(ctx, namespace))
	require.NoError(c.t, c.Wait(ctx, "namespace "+c.Namespace+" to be gone", func(ctx context.Context) (bool, error) {
		if err := c.stripFinalizers(ctx); err != nil {
			return false, err
		}

		err := c.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)

		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))

	for _, kind := range []string{"customresourcedefinitions", "clusterroles", "clusterrolebindings"} {
		out, err := c.Run(c.ctx, "kubectl", "get", kind, "-o", "name")
		require.NoError(c.t, err)

		for name := range strings.Lines(out) {
			name = strings.TrimSpace(name)
			if !strings.Contains(name, "velero") && !strings.Contains(name, "estiba") {
				continue
			}

			_, err := c.Run(c.ctx, "kubectl", "delete", "--wait", name)
			require.NoError(c.t, err)
		}
	}
}

// stripFinalizers takes Velero's finalizers from its restores: the server that
// would do it, and that puts them back while it lives, goes with its namespace.
func (c *cell) stripFinalizers(ctx context.Context) error {
	var restores velerov1.RestoreList
	if err := c.List(ctx, &restores, client.InNamespace(c.Namespace)); err != nil {
		return err
	}

	for i := range restores.Items {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		if err := c.Patch(ctx, &restores.Items[i], patch); client.IgnoreNotFound(err) != nil {
			return err
		}
	}

	return nil
}
