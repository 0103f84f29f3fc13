package remove_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/remove"
)

const id = "abcdefghijklmnopqrstuvwxyz"

func item(annotation, value string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": "shop", "name": "x"}}}
	if annotation != "" {
		u.SetAnnotations(map[string]string{annotation: value})
	}

	return u
}

func volume(job string) contract.Volume {
	return contract.Volume{Job: job, Repository: contract.Repository{Namespace: "shop", ID: id, Path: "plugins/estiba/repositories/shop/" + id + "/"}}
}

func TestExecute(t *testing.T) {
	encode := func(r interface{ Encode() (string, error) }) string {
		text, err := r.Encode()
		require.NoError(t, err)

		return text
	}
	pod := func(backup string) string {
		return encode(contract.PodRecord{Backup: contract.Owner{Name: backup, UID: "b-1"}, Volumes: map[string]contract.Volume{"a": volume("vb-1"), "b": volume("vb-2")}})
	}

	type test struct {
		action  func(s *remove.Session) *remove.Action
		item    *unstructured.Unstructured
		deleted []string
		err     string
	}

	tests := map[string]test{
		"a pod's volumes":            {item: item(contract.AnnotationVolumes, pod("nightly")), deleted: []string{"vb-1", "vb-2"}},
		"a pod without a record":     {item: item("", "")},
		"a record of another backup": {item: item(contract.AnnotationVolumes, pod("older"))},
		"a record that's broken":     {item: item(contract.AnnotationVolumes, "{"), err: "snapshots are not deleted"},
		"a record of a foreign path": {item: item(contract.AnnotationVolumes, encode(contract.PodRecord{Backup: contract.Owner{Name: "nightly"}, Volumes: map[string]contract.Volume{"a": {Job: "vb-1", Repository: contract.Repository{Namespace: "..", ID: id}}}})), err: "namespace"},
		"a claim's volume": {
			action: func(s *remove.Session) *remove.Action {
				l, _ := logtest.NewNullLogger()
				return remove.NewClaimAction(l, s)
			},
			item:    item(contract.AnnotationVolume, encode(contract.ClaimRecord{Backup: contract.Owner{Name: "nightly", UID: "b-1"}, Volume: volume("vb-3")})),
			deleted: []string{"vb-3"},
		},
	}
	ofJob := func(s *remove.Session) *remove.Action {
		l, _ := logtest.NewNullLogger()

		return remove.NewJobAction(l, s)
	}
	job := func(backup, namespace string) *unstructured.Unstructured {
		u := item("", "")
		u.SetName("vb-9")
		u.Object["spec"] = map[string]any{
			"backup":     map[string]any{"name": backup, "uid": "b-1"},
			"repository": map[string]any{"backupStorageLocation": "of-then", "namespace": namespace, "id": id},
		}

		return u
	}
	tests["a job, such as that of a pod that Velero left out"] = test{action: ofJob, item: job("nightly", "shop"), deleted: []string{"vb-9"}}
	tests["a job of another backup"] = test{action: ofJob, item: job("older", "shop")}
	tests["a job of a foreign path"] = test{action: ofJob, item: job("nightly", "../shop"), err: "spec.repository"}
	tests["a job that's broken"] = test{action: ofJob, item: &unstructured.Unstructured{Object: map[string]any{"spec": "x"}}, err: "read VolumeBackup"}

	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			require.NoError(t, v1alpha1.AddToScheme(scheme))

			c := fake.NewClientBuilder().WithScheme(scheme).Build()
			session := remove.NewSession(func() (client.Client, error) { return c, nil }, clocktesting.NewFakeClock(time.Now()))
			log, _ := logtest.NewNullLogger()
			action := remove.NewPodAction(log, session)

			if tt.action != nil {
				action = tt.action(session)
			}

			in := &velero.DeleteItemActionExecuteInput{Item: tt.item, Backup: &velerov1.Backup{
				// Another UID than the record's: this cluster found the backup in the object store.
				ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "nightly", UID: "b-2"}, Spec: velerov1.BackupSpec{StorageLocation: "default"},
			}}

			for range 2 { // again is the same
				err := action.Execute(in)
				if tt.err != "" {
					require.ErrorContains(t, err, tt.err)
				} else {
					require.NoError(t, err)
				}
			}

			var list v1alpha1.SnapshotDeletionList
			require.NoError(t, c.List(context.Background(), &list))

			var deleted []string
			for _, d := range list.Items {
				deleted = append(deleted, d.Spec.Snapshot.Job)
				assert.Equal(t, v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "shop", ID: id}, d.Spec.Repository)
				assert.Equal(t, v1alpha1.OwnerReference{Name: "nightly", UID: "b-1"}, d.Spec.Snapshot.Backup)
			}

			assert.ElementsMatch(t, tt.deleted, deleted)
		})
	}
}

// impatientClock is a clock whose waits are over at once, and counted.
type impatientClock struct {
	*clocktesting.FakeClock
	waited time.Duration
}

func (c *impatientClock) After(d time.Duration) <-chan time.Time {
	c.waited += d
	over := make(chan time.Time, 1)
	over <- c.Now()

	return over
}

func TestAnAPIServerThatRefusesIsAskedAgain(t *testing.T) {
	record := func(job string) *unstructured.Unstructured {
		text, err := contract.ClaimRecord{Backup: contract.Owner{Name: "nightly", UID: "b-1"}, Volume: volume(job)}.Encode()
		require.NoError(t, err)

		return item(contract.AnnotationVolume, text)
	}

	for name, c := range map[string]struct {
		refusals int
		made     int
		waited   time.Duration
	}{
		"for some seconds": {refusals: 4, made: 3, waited: 7500 * time.Millisecond},
		"for ever":         {refusals: 1000, waited: 44500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			require.NoError(t, v1alpha1.AddToScheme(scheme))

			asked := 0
			refusing := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).Build(), interceptor.Funcs{
				Create: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.CreateOption) error {
					if asked++; asked <= c.refusals {
						return errors.New("webhook says no")
					}

					return w.Create(ctx, o, opts...)
				},
			})
			waits := &impatientClock{FakeClock: clocktesting.NewFakeClock(time.Now())}
			log, _ := logtest.NewNullLogger()
			action := remove.NewClaimAction(log, remove.NewSession(func() (client.Client, error) { return refusing, nil }, waits))
			backup := &velerov1.Backup{
				ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "nightly"}, Spec: velerov1.BackupSpec{StorageLocation: "default"},
			}

			for i := range 3 {
				err := action.Execute(&velero.DeleteItemActionExecuteInput{Item: record(fmt.Sprintf("vb-%d", i)), Backup: backup})
				if c.made > 0 {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, fmt.Sprintf("the snapshot of vb-%d stays in repository %s of namespace shop and location default", i, id))
					require.ErrorContains(t, err, "webhook says no")
				}
			}

			var list v1alpha1.SnapshotDeletionList
			require.NoError(t, refusing.List(t.Context(), &list))
			assert.Len(t, list.Items, c.made)
			assert.Equal(t, c.waited, waits.waited, "in vain for all items together, not for each")
		})
	}
}
