package cluster

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
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

func TestALocationThatPointsElsewhereWakesItsRepositories(t *testing.T) {
	t.Parallel()

	scheme := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(scheme))

	location := &velerov1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "default"}}
	location.Spec.Provider = "aws"
	location.Spec.ObjectStorage = &velerov1.ObjectStorageLocation{Bucket: "one"}

	here, err := jobs.Place(location)
	require.NoError(t, err)

	repository := func(namespace, location, place string, phase v1alpha1.RepositoryPhase) *v1alpha1.Repository {
		r := jobs.NewRepository("velero", location, namespace)
		r.Status.Phase, r.Status.Place = phase, place

		return r
	}
	c := &Cluster{Namespace: "velero", Client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(
		repository("well", "default", here, v1alpha1.RepositoryReady),
		repository("of-an-earlier-release", "default", "", v1alpha1.RepositoryReady),
		repository("not-well", "default", here, v1alpha1.RepositoryNotReady),
		repository("elsewhere", "other", here, v1alpha1.RepositoryReady),
	).Build()}
	woken := func() (names []string) {
		for _, r := range c.repositoriesIn(t.Context(), location) {
			names = append(names, r.Name)
		}

		return names
	}
	name := func(namespace string) string { return jobs.RepositoryName("default", namespace) }

	assert.Equal(t, []string{name("not-well")}, woken())

	location.Spec.ObjectStorage.Bucket = "two"
	assert.ElementsMatch(t, []string{name("not-well"), name("well")}, woken())
}

func TestAJobThatDidNotFindItsRepositoryHasItLookedFor(t *testing.T) {
	t.Parallel()

	job := &v1alpha1.VolumeBackup{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "vb-1"}}
	job.Spec.Repository = v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: "x"}
	assert.Empty(t, missed(t.Context(), job))

	job.Status.Phase, job.Status.Reason = v1alpha1.PhaseFailed, "RepositoryNotFound"
	got := missed(t.Context(), job)
	require.Len(t, got, 1)
	assert.Equal(t, jobs.RepositoryName("default", "app"), got[0].Name)
	assert.Equal(t, "velero", got[0].Namespace)
}

func TestOfRestoredPodsOnlyAdoptedOnesAreLookedAt(t *testing.T) {
	t.Parallel()

	text, err := contract.GateRecord{VeleroNamespace: "velero", StandIn: "claim"}.Encode()
	require.NoError(t, err)

	c := &Cluster{Namespace: "velero"}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{contract.AnnotationRestore: text}, OwnerReferences: []metav1.OwnerReference{{Kind: "PersistentVolumeClaim", UID: "claim"}},
	}}
	assert.False(t, c.adopted(pod))

	controls := true
	pod.OwnerReferences = append(pod.OwnerReferences, metav1.OwnerReference{Kind: "ReplicaSet", UID: "rs", Controller: &controls})
	assert.True(t, c.adopted(pod))
}
