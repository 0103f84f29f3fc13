package cluster

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

func TestTheMasterKeyWakesAllRepositories(t *testing.T) {
	t.Parallel()

	scheme := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(scheme))

	a, b := jobs.NewRepository("velero", "default", "a"), jobs.NewRepository("velero", "default", "b")
	a.Status.Phase = v1alpha1.RepositoryReady
	c := &Cluster{Namespace: "velero", Client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(a, b).Build()}

	got := c.repositoriesOfKey(t.Context(), &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: contract.MasterKeySecret}})
	assert.Len(t, got, 2)
	assert.Empty(t, c.repositoriesOfKey(t.Context(), &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "other"}}))
}

func TestOfSecretsOnlyTheMasterKeyIsWatched(t *testing.T) {
	t.Parallel()

	o, err := CacheOptions("velero")
	require.NoError(t, err)

	var found bool

	for object, by := range o.ByObject {
		if _, ok := object.(*corev1.Secret); ok {
			found = true

			assert.Equal(t, "metadata.name="+contract.MasterKeySecret, by.Field.String(), "the controller has the right to watch no other")
			assert.Len(t, by.Namespaces, 1)
		}
	}

	assert.True(t, found)
}
