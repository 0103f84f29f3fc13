//go:build e2e

package e2e

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// A daemon's token that was stolen from its node is good for that node's jobs
// only, where the API server keeps to the policy of the install.
func TestADaemonsTokenIsGoodForItsOwnNodeOnly(t *testing.T) {
	c := open(t)
	c.app(classDelete, lab.Data{Files: 5, Bytes: 1 << 14, Seed: 40})
	c.backup(c.namespace)

	own := c.goodBackup()
	own.Name = c.namespace + "-own"
	c.create(own)
	thief := c.asDaemon(own.Labels[contract.LabelNode])

	foreign := c.goodBackupOf(own, "elsewhere")
	c.create(foreign)

	report := func(job *v1alpha1.VolumeBackup) error {
		return thief.Status().Patch(c.ctx, job.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"message":"said by a thief"}}`)))
	}
	foreignLease := func() error {
		return thief.Create(c.ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: "estiba-node-elsewhere"},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("elsewhere")},
		})
	}

	for name, test := range map[string]struct {
		do   func() error
		says string
	}{
		"report on another node's job": {func() error { return report(foreign) }, "may not report on a job of another node"},
		"keep a dead node alive":       {foreignLease, "may renew its own heartbeat only"},
		"change a job's spec": {func() error {
			return thief.Patch(c.ctx, foreign.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"cancel":true}}`)))
		}, "cannot patch resource"},
		"give itself a job": {func() error {
			return thief.Patch(c.ctx, foreign.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"`+contract.LabelNode+`":"n"}}}`)))
		}, "cannot patch resource"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.do()
			require.Error(t, err)
			assert.True(t, apierrors.IsForbidden(err), err)
			assert.ErrorContains(t, err, test.says)
		})
	}

	t.Run("report on its own node's job", func(t *testing.T) {
		require.NoError(t, report(own))
	})

	t.Run("without the policy, RBAC alone lets it report on any", func(t *testing.T) {
		c.withoutAdmission()
		require.NoError(t, c.Wait(c.ctx, "the policy to be gone", func(context.Context) (bool, error) {
			return report(foreign) == nil, nil
		}))
	})
}

// The controller takes owners off restored pods. Its token, stolen, changes nothing else of a pod.
func TestTheControllersTokenChangesNothingOfAPodButItsOwners(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.emptied()

	boss := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "boss"}}
	c.create(boss)

	var claim corev1.PersistentVolumeClaim
	require.NoError(t, c.Get(c.ctx, client.ObjectKey{Namespace: c.namespace, Name: "data"}, &claim))

	standIn := metav1.OwnerReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Name: claim.Name, UID: claim.UID}
	controller := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: boss.Name, UID: boss.UID, Controller: ptr.To(true)}
	owned := func(name string, owners ...metav1.OwnerReference) *corev1.Pod {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name, Labels: map[string]string{"app": "x"}, OwnerReferences: owners},
			Spec:       lab.PodSpec([]string{"data"}, nil),
		}
		c.create(pod)

		return pod
	}
	adopted, unadopted := owned("adopted", standIn, controller), owned("unadopted", standIn)
	thief := c.asPodOf(contract.ComponentController, "")

	for name, test := range map[string]struct {
		pod    *corev1.Pod
		change func(*corev1.Pod)
		passes bool
	}{
		"have it run another image": {pod: adopted, change: func(p *corev1.Pod) { p.Spec.Containers[0].Image = "thief.test/image" }},
		"give it a toleration": {pod: adopted, change: func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists})
		}},
		"change a label":                   {pod: adopted, change: func(p *corev1.Pod) { p.Labels["app"] = "y" }},
		"take all its labels":              {pod: adopted, change: func(p *corev1.Pod) { p.Labels = nil }},
		"annotate it":                      {pod: adopted, change: func(p *corev1.Pod) { p.Annotations = map[string]string{"a": "b"} }},
		"keep it from going":               {pod: adopted, change: func(p *corev1.Pod) { p.Finalizers = []string{"thief.test/stays"} }},
		"take its controller off":          {pod: adopted, change: func(p *corev1.Pod) { p.OwnerReferences = p.OwnerReferences[:1] }},
		"take all its owners off":          {pod: adopted, change: func(p *corev1.Pod) { p.OwnerReferences = nil }},
		"let an owner be its controller":   {pod: unadopted, change: func(p *corev1.Pod) { p.OwnerReferences[0].Controller = ptr.To(true) }},
		"give it a controller":             {pod: unadopted, change: func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{controller} }},
		"take the only owner off":          {pod: unadopted, change: func(p *corev1.Pod) { p.OwnerReferences = nil }},
		"take off an owner that stands in": {pod: adopted, change: func(p *corev1.Pod) { p.OwnerReferences = p.OwnerReferences[1:] }, passes: true},
	} {
		t.Run(name, func(t *testing.T) {
			changed := test.pod.DeepCopy()
			test.change(changed)

			err := thief.Patch(c.ctx, changed, client.MergeFrom(test.pod), client.DryRunAll)
			if test.passes {
				require.NoError(t, err)
				return
			}

			require.Error(t, err)
			assert.True(t, apierrors.IsForbidden(err), err)
			assert.ErrorContains(t, err, "the controller may")
		})
	}
}

// asDaemon returns a client with the token of a node's daemon.
func (c *cell) asDaemon(node string) client.Client {
	c.t.Helper()

	return c.asPodOf(contract.ComponentNode, node)
}

// asPodOf returns a client with the token of one of Estiba's own pods; an empty node is any.
func (c *cell) asPodOf(component, node string) client.Client {
	c.t.Helper()

	var pods corev1.PodList
	require.NoError(c.t, c.List(c.ctx, &pods, client.InNamespace(c.Namespace), client.MatchingLabels{contract.LabelComponent: component}))

	here := slices.IndexFunc(pods.Items, func(p corev1.Pod) bool { return node == "" || p.Spec.NodeName == node })
	require.GreaterOrEqual(c.t, here, 0, node)

	pod := pods.Items[here]
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: pod.Spec.ServiceAccountName}}
	require.NoError(c.t, c.SubResource("token").Create(c.ctx, account, token))

	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	require.NoError(c.t, err)

	config = rest.AnonymousClientConfig(config)
	config.BearerToken = token.Status.Token

	daemon, err := client.New(config, client.Options{Scheme: c.Scheme()})
	require.NoError(c.t, err)

	return daemon
}

// goodBackupOf returns a job like another one, of another node.
func (c *cell) goodBackupOf(job *v1alpha1.VolumeBackup, node string) *v1alpha1.VolumeBackup {
	other := &v1alpha1.VolumeBackup{ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: c.namespace + "-" + node, Labels: map[string]string{}}, Spec: job.Spec}
	for k, v := range job.Labels {
		other.Labels[k] = v
	}

	other.Labels[contract.LabelNode] = node

	return other
}

// withoutAdmission takes the binding of the policy away until the test ends.
func (c *cell) withoutAdmission() {
	c.t.Helper()

	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "estiba-node"}}
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKeyFromObject(binding), binding))
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()

		again := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: binding.Name, Labels: binding.Labels}, Spec: binding.Spec}
		require.NoError(c.t, c.Create(ctx, again))
	})
	require.NoError(c.t, c.Delete(c.ctx, binding))
}
