package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/cluster"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// restoredClaim is a restore's job, and the claim and the volume that were made for it.
func restoredClaim() (*v1alpha1.VolumeRestore, *corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	job := jobs.NewRestore(veleroNS, v1alpha1.VolumeRestoreSpec{
		Restore:  v1alpha1.OwnerReference{Name: "r", UID: "ruid"},
		Target:   v1alpha1.VolumeReference{Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: "data"}},
		Original: &v1alpha1.OriginalVolume{ReclaimPolicy: "Retain", Labels: map[string]string{"tier": "gold", "example.com/owner": "shop"}},
	})
	job.CreationTimestamp = metav1.NewTime(start)

	claim, pv := claimOfApp(), volumeOfApp()
	claim.Labels = map[string]string{contract.LabelRestoreName: "r"}
	pv.CreationTimestamp = metav1.NewTime(start)
	pv.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": "p"}
	pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
	pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "app", Name: "data", UID: "cuid"}
	pv.Status.Phase = corev1.VolumeBound

	return job, claim, pv
}

func TestWhatIsPutBackOnTheVolumeOfARestoredClaim(t *testing.T) {
	t.Parallel()

	type objects struct {
		job   *v1alpha1.VolumeRestore
		claim *corev1.PersistentVolumeClaim
		pv    *corev1.PersistentVolume
	}

	original := map[string]string{"tier": "gold", "example.com/owner": "shop"}

	for name, test := range map[string]struct {
		change func(o *objects)
		labels map[string]string
		policy corev1.PersistentVolumeReclaimPolicy
	}{
		"the labels and the policy":                           {labels: original, policy: "Retain"},
		"no policy that only the old volume could have":       {func(o *objects) { o.job.Spec.Original.ReclaimPolicy = "Recycle" }, original, "Delete"},
		"the policy alone":                                    {func(o *objects) { o.job.Spec.Original.Labels = nil }, nil, "Retain"},
		"no label that the provisioner has given another way": {func(o *objects) { o.pv.Labels = map[string]string{"tier": "new"} }, map[string]string{"tier": "new", "example.com/owner": "shop"}, "Retain"},
		"no label that says where the old volume was": {func(o *objects) {
			o.job.Spec.Original.Labels = map[string]string{
				"topology.kubernetes.io/zone": "a", "failure-domain.beta.kubernetes.io/zone": "a", "kubernetes.io/hostname": "n", "velero.io/restore-name": "x",
				"topology.ebs.csi.aws.com/zone": "a", "kubernetes.io": "a name", "tier": "gold",
			}
		}, map[string]string{"tier": "gold", "kubernetes.io": "a name"}, "Retain"},
		"nothing where that isn't known":                  {change: func(o *objects) { o.job.Spec.Original = nil }},
		"nothing where all is as it was":                  {change: func(o *objects) { o.pv.Labels, o.pv.Spec.PersistentVolumeReclaimPolicy = original, "Retain" }},
		"nothing on a volume that was there before":       {change: func(o *objects) { o.pv.CreationTimestamp = metav1.NewTime(start.Add(-time.Second)) }},
		"nothing on a volume that a person made":          {change: func(o *objects) { o.pv.Annotations = nil }},
		"nothing on a volume of another claim":            {change: func(o *objects) { o.pv.Spec.ClaimRef.UID = "another" }},
		"nothing on a volume that the claim doesn't name": {change: func(o *objects) { o.claim.Spec.VolumeName = "another" }},
		"nothing on a volume that isn't bound":            {change: func(o *objects) { o.pv.Status.Phase = corev1.VolumeReleased }},
		"nothing on a volume without a claim":             {change: func(o *objects) { o.pv.Spec.ClaimRef = nil }},
		"nothing for a claim of another restore":          {change: func(o *objects) { o.claim.Labels[contract.LabelRestoreName] = "another" }},
		"nothing for a claim that nobody restored":        {change: func(o *objects) { o.claim.Labels = nil }},
		"nothing for a claim that is being deleted":       {change: func(o *objects) { o.claim.DeletionTimestamp = &metav1.Time{Time: start} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var o objects

			o.job, o.claim, o.pv = restoredClaim()
			if test.change != nil {
				test.change(&o)
			}

			before := o.pv.DeepCopy()
			got := cluster.AsItWas(o.job, o.claim, o.pv)
			assert.Equal(t, before, o.pv, "what comes from the API server is compared with, and stays")

			if test.policy == "" {
				assert.Nil(t, got)

				return
			}

			require.NotNil(t, got)
			assert.Equal(t, test.labels, got.Labels)
			assert.Equal(t, test.policy, got.Spec.PersistentVolumeReclaimPolicy)
			assert.Nil(t, cluster.AsItWas(o.job, o.claim, got), "a second time there is nothing to do")
		})
	}
}

func TestARestoreIsRoutedWithItsVolumeAsItWas(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		err    error
		routed bool
		put    bool
	}{
		"before the node has it":                {routed: true, put: true},
		"although the controller may not":       {err: apierrors.NewForbidden(schema.GroupResource{Resource: "persistentvolumes"}, "pv", nil), routed: true},
		"and not before the API server answers": {err: apierrors.NewServiceUnavailable("later")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job, claim, pv := restoredClaim()
			owner := &velerov1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "r", UID: "ruid"}, Status: velerov1.RestoreStatus{Phase: velerov1.RestorePhaseWaitingForPluginOperations}}
			w := newWorld(t, owner, job, claim, pv, lease("n1", start))

			gated := realPod("n1", corev1.PodPending)
			note, err := contract.GateRecord{Restore: contract.Owner{Name: "r", UID: "ruid"}, Jobs: map[string]string{"d": job.Name}}.Encode()
			require.NoError(t, err)

			gated.Annotations = map[string]string{contract.AnnotationRestore: note}
			gated.Spec.InitContainers = []corev1.Container{{Name: contract.GateContainer}}
			gated.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: contract.GateContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			require.NoError(t, w.client.Create(t.Context(), gated))

			w.Client = interceptor.NewClient(w.client.(client.WithWatch), interceptor.Funcs{
				Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
					if _, ok := o.(*corev1.PersistentVolume); ok && test.err != nil {
						return test.err
					}

					return c.Patch(ctx, o, p, opts...)
				},
			})

			_, err = w.ReconcileRestore(t.Context(), req(job.Name))
			assert.Equal(t, !test.routed, err != nil, "%v", err)
			require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(job), job))
			assert.Equal(t, test.routed, job.Labels[contract.LabelNode] == "n1", job.Status.Message)

			require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(pv), pv))
			assert.Equal(t, test.put, pv.Labels["tier"] == "gold")
			assert.Equal(t, test.put, pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRetain)
		})
	}
}
