package remove_test

import (
	"context"
	"testing"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

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

	tests := map[string]struct {
		action  func(c remove.Connect) *remove.Action
		item    *unstructured.Unstructured
		deleted []string
		err     string
	}{
		"a pod's volumes":            {item: item(contract.AnnotationVolumes, pod("nightly")), deleted: []string{"vb-1", "vb-2"}},
		"a pod without a record":     {item: item("", "")},
		"a record of another backup": {item: item(contract.AnnotationVolumes, pod("older"))},
		"a record that's broken":     {item: item(contract.AnnotationVolumes, "{"), err: "snapshots are not deleted"},
		"a record of a foreign path": {item: item(contract.AnnotationVolumes, encode(contract.PodRecord{Backup: contract.Owner{Name: "nightly"}, Volumes: map[string]contract.Volume{"a": {Job: "vb-1", Repository: contract.Repository{Namespace: "..", ID: id}}}})), err: "namespace"},
		"a claim's volume": {
			action: func(c remove.Connect) *remove.Action {
				l, _ := logtest.NewNullLogger()
				return remove.NewClaimAction(l, c)
			},
			item:    item(contract.AnnotationVolume, encode(contract.ClaimRecord{Backup: contract.Owner{Name: "nightly", UID: "b-1"}, Volume: volume("vb-3")})),
			deleted: []string{"vb-3"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			require.NoError(t, v1alpha1.AddToScheme(scheme))

			c := fake.NewClientBuilder().WithScheme(scheme).Build()
			connect := func() (client.Client, error) { return c, nil }
			log, _ := logtest.NewNullLogger()
			action := remove.NewPodAction(log, connect)

			if tt.action != nil {
				action = tt.action(connect)
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
