//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	webhookv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

const proxyContainer = "mesh-proxy"

// mesh does to the pods of the cell's namespace what a service mesh does: a webhook
// puts a native sidecar before all other init containers, also before our gate.
func (c *cell) mesh() {
	c.t.Helper()

	server := httptest.NewTLSServer(http.HandlerFunc(injectProxy))
	c.t.Cleanup(server.Close)

	hook := &webhookv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: c.namespace},
		Webhooks: []webhookv1.MutatingWebhook{{
			Name: "mesh.estiba.test", AdmissionReviewVersions: []string{"v1"}, SideEffects: ptr.To(webhookv1.SideEffectClassNone),
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: c.namespace}},
			ClientConfig: webhookv1.WebhookClientConfig{
				URL: &server.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			Rules: []webhookv1.RuleWithOperations{{
				Operations: []webhookv1.OperationType{webhookv1.Create},
				Rule:       webhookv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}
	require.NoError(c.t, c.Create(c.ctx, hook))
	c.t.Cleanup(func() { assert.NoError(c.t, c.Delete(context.Background(), hook)) })
}

// injectProxy answers an API server: the proxy comes first, once.
func injectProxy(w http.ResponseWriter, r *http.Request) {
	var (
		review admissionv1.AdmissionReview
		pod    corev1.Pod
	)

	err := json.NewDecoder(r.Body).Decode(&review)
	if err == nil {
		err = json.Unmarshal(review.Request.Object.Raw, &pod)
	}

	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)

		return
	}

	proxy := lab.PodSpec(nil, nil).Containers[0]
	proxy.Name, proxy.RestartPolicy = proxyContainer, ptr.To(corev1.ContainerRestartPolicyAlways)
	all := []corev1.Container{proxy}

	for _, container := range pod.Spec.InitContainers {
		if container.Name != proxyContainer {
			all = append(all, container)
		}
	}

	patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/spec/initContainers", "value": all}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)

		return
	}

	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: patch, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
	_ = json.NewEncoder(w).Encode(review) // the API server says what went wrong
}

// The sidecars of a mesh may come before the gate: they mount none of the volumes, and the gate needs no network.
func TestAPodOfAServiceMeshComesBackWithItsSidecarBeforeTheGate(t *testing.T) {
	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.mesh()
	c.createPod("app", nil, []string{"scratch"})

	require.NoError(t, lab.FillVolume(c.volume(c.podAgain()), lab.Data{Files: 40, Bytes: 1 << 20, Seed: 51}))
	kept := c.keepVolume(c.podAgain())
	c.backup(c.namespace)
	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)

	pod := c.podAgain()
	require.Len(t, pod.Spec.InitContainers, 2)
	assert.Equal(t, []string{proxyContainer, contract.GateContainer}, []string{pod.Spec.InitContainers[0].Name, pod.Spec.InitContainers[1].Name})
	c.sameDir(kept, c.volume(pod))

	// The next backup and restore trip over neither.
	c.backup(c.namespace + "-again")
	c.completed(c.namespace+"-again", 1)
	c.deleteNamespace()
	c.restore(c.namespace+"-again", c.namespace+"-again")

	pod = c.podAgain()
	assert.Len(t, pod.Spec.InitContainers, 2)
	c.sameDir(kept, c.volume(pod))
}
