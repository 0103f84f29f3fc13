package keys_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/credentials"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// api is an API server with the Secret of the master key, which can be written, Repositories and locations.
type api struct {
	mu           sync.Mutex
	secret       corev1.Secret
	repositories []v1alpha1.Repository
	locations    []velerov1.BackupStorageLocation
	conflict     bool
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()

	w.Header().Set("Content-Type", "application/json")

	var answer any

	switch r.Method + " " + r.URL.Path {
	case "GET /api/v1/namespaces/velero/secrets/estiba-master-key":
		answer = a.secret
	case "PUT /api/v1/namespaces/velero/secrets/estiba-master-key":
		if a.conflict {
			answer = metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonConflict, Code: http.StatusConflict}
			w.WriteHeader(http.StatusConflict)

			break
		}

		var s corev1.Secret

		content, err := io.ReadAll(r.Body)
		if err == nil {
			_, _, err = scheme.Codecs.UniversalDeserializer().Decode(content, nil, &s)
		}

		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}

		s.TypeMeta = a.secret.TypeMeta
		a.secret, answer = s, s
	case "GET /apis/estiba.dev/v1alpha1/namespaces/velero/repositories":
		answer = v1alpha1.RepositoryList{TypeMeta: metav1.TypeMeta{APIVersion: "estiba.dev/v1alpha1", Kind: "RepositoryList"}, Items: a.repositories}
	case "GET /apis/velero.io/v1/namespaces/velero/backupstoragelocations":
		answer = velerov1.BackupStorageLocationList{TypeMeta: metav1.TypeMeta{APIVersion: "velero.io/v1", Kind: "BackupStorageLocationList"}, Items: a.locations}
	default:
		w.WriteHeader(http.StatusNotFound)
	}

	_ = json.NewEncoder(w).Encode(answer)
}

// config returns a kubeconfig of the server.
func (a *api) config(t *testing.T) string {
	t.Helper()

	server := httptest.NewServer(a)
	t.Cleanup(server.Close)

	return write(t, fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: one, context: {cluster: c}}]\ncurrent-context: one\n", server.URL))
}

// newAPI has one repository of namespace app, of which the controller says that it is under the key.
func newAPI(t *testing.T) *api {
	t.Helper()

	a := &api{secret: secret("velero")}
	l := velerov1.BackupStorageLocation{}
	l.Namespace, l.Name = "velero", "default"
	a.locations = []velerov1.BackupStorageLocation{l}

	return a.under(t, goldenKey)
}

func (a *api) under(t *testing.T, key string) *api {
	t.Helper()

	k, err := credentials.ParseMasterKey([]byte(key))
	require.NoError(t, err)
	fingerprint, err := k.Fingerprint()
	require.NoError(t, err)

	repo := jobs.NewRepository("velero", "default", "app")
	repo.TypeMeta = metav1.TypeMeta{APIVersion: "estiba.dev/v1alpha1", Kind: "Repository"}
	repo.Status.KeyFingerprint = fingerprint
	repo.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionKeyCurrent, Status: metav1.ConditionTrue, Reason: "KeyCurrent"}}
	a.repositories = []v1alpha1.Repository{*repo}

	return a
}

func TestAMasterKeyIsRotated(t *testing.T) {
	t.Parallel()

	a := newAPI(t)
	config := a.config(t)

	first, err := run(t, "", "rotate", "--kubeconfig", config)
	require.NoError(t, err)

	second := string(a.secret.Data["key"])
	assert.NotEqual(t, goldenKey, second)
	assert.Equal(t, goldenKey, string(a.secret.Data["previous"]))
	assert.Equal(t, "true", a.secret.Labels["velero.io/exclude-from-backup"])
	assert.Equal(t, "4711", a.secret.ResourceVersion, "who has changed it since must not be written over")
	assert.Contains(t, first, "EXPORT IT NOW")

	exported, err := run(t, "", "export", "--kubeconfig", config)
	require.NoError(t, err)

	again, err := run(t, exported, "export", "--key-file", "-")
	require.NoError(t, err)
	assert.Equal(t, exported, again, "both keys are exported")

	derived, err := run(t, "", "derive", "--repository", goldenID, "--kubeconfig", config, "--previous")
	require.NoError(t, err)
	assert.Equal(t, goldenPassword+"\n", derived)

	derived, err = run(t, "", "derive", "--repository", goldenID, "--kubeconfig", config)
	require.NoError(t, err)
	assert.NotEqual(t, goldenPassword+"\n", derived)

	for _, args := range [][]string{{"rotate"}, {"rotate", "--finish"}} {
		_, err = run(t, "", append(args, "--kubeconfig", config)...)
		require.ErrorContains(t, err, "namespace app", "it isn't under the new key")
		assert.Equal(t, goldenKey, string(a.secret.Data["previous"]))
	}

	a.under(t, second)

	last, err := run(t, "", "rotate", "--finish", "--kubeconfig", config)
	require.NoError(t, err)
	assert.Equal(t, second, string(a.secret.Data["key"]))
	assert.NotContains(t, a.secret.Data, "previous")

	for _, out := range []string{first, last} {
		assert.NotContains(t, out, goldenKey)
		assert.NotContains(t, out, second)
	}
}

func TestAPreviousKeyThatIsNeededStays(t *testing.T) {
	t.Parallel()

	const nextKey = "oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr8="

	for name, c := range map[string]struct {
		prepare func(*api)
		args    []string
		says    string
	}{
		"a repository that waits": {func(a *api) {
			a.repositories[0].Status.Conditions[0].Status = metav1.ConditionFalse
			a.repositories[0].Status.Conditions[0].Message = "VolumeBackup vb-1 works with it"
		}, nil, "VolumeBackup vb-1 works with it"},
		"one that was current under the key before": {func(a *api) { a.repositories[0].Status.KeyFingerprint = "00" }, nil, "not looked at"},
		"one that nobody has looked at":             {func(a *api) { a.repositories[0].Status = v1alpha1.RepositoryStatus{} }, nil, "not looked at"},
		"a location of which nothing is known":      {func(a *api) { a.repositories = nil }, nil, "BackupStorageLocation default"},
		"another location than the one that is left behind": {
			func(a *api) { a.repositories[0].Status = v1alpha1.RepositoryStatus{} }, []string{"--leave-location", "other"}, "not looked at",
		},
		"a Secret that somebody writes": {func(a *api) { a.conflict = true }, nil, "write Secret velero/estiba-master-key"},
		"a location that is left behind": {
			func(a *api) { a.repositories[0].Status = v1alpha1.RepositoryStatus{} }, []string{"--leave-location", "default"}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			a := newAPI(t).under(t, nextKey)
			a.secret.Data = map[string][]byte{"key": []byte(nextKey), "previous": []byte(goldenKey)}
			c.prepare(a)

			for _, verb := range [][]string{{"rotate", "--finish"}, {"rotate"}} {
				_, err := run(t, "", append(append(verb, "--kubeconfig", a.config(t)), c.args...)...)
				if c.says == "" {
					require.NoError(t, err)
					continue
				}

				require.ErrorContains(t, err, c.says)
				assert.Equal(t, goldenKey, string(a.secret.Data["previous"]))
				assert.Equal(t, nextKey, string(a.secret.Data["key"]))
				assert.NotContains(t, err.Error(), goldenKey)
			}
		})
	}
}

func TestThereMayBeNoPreviousKey(t *testing.T) {
	t.Parallel()

	config := newAPI(t).config(t)

	_, err := run(t, "", "rotate", "--finish", "--kubeconfig", config)
	require.ErrorContains(t, err, "nothing is to be finished")

	_, err = run(t, "", "derive", "--repository", goldenID, "--kubeconfig", config, "--previous")
	require.ErrorContains(t, err, "there is no previous master key")

	broken := secret("velero")
	broken.Data["previous"] = []byte(strings.Repeat("A", 44))

	_, err = run(t, manifest(t, broken), "derive", "--repository", goldenID, "--key-file", "-")
	require.ErrorContains(t, err, "key previous of Secret estiba-master-key")
}
