package keys_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/estiba-dev/estiba/mover/keys"
)

const (
	// goldenKey is bytes 0x80 to 0x9f, and goldenPassword what the openssl command
	// of docs/keys.md makes of it for goldenID.
	goldenKey      = "gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8="
	goldenID       = "abcdefghijklmnopqrstuvwxye"
	goldenPassword = "6b7daeeb9753d05bd2332de71eded9b2f36f06651a92c8ee87867f06ee13cae2"

	nowhere = "apiVersion: v1\nkind: Config\n"
)

// run runs `key` with arguments, in a namespace "velero" unless they say otherwise.
func run(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()

	var out bytes.Buffer

	c := keys.Command("velero", rand.Reader)
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)

	err := c.ExecuteContext(t.Context())

	return out.String(), err
}

func write(t *testing.T, content string) string {
	t.Helper()

	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))

	return path
}

// secret is what `kubectl get secret -o yaml` shows.
func secret(namespace string) corev1.Secret {
	return corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "estiba-master-key", UID: "0d5e", ResourceVersion: "4711",
			Annotations:   map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "mover"}},
		},
		Data: map[string][]byte{"key": []byte(goldenKey)},
	}
}

func manifest(t *testing.T, s corev1.Secret) string {
	t.Helper()

	b, err := yaml.Marshal(s)
	require.NoError(t, err)

	return string(b)
}

// cluster returns a kubeconfig of an API server that knows one Secret.
func cluster(t *testing.T, s corev1.Secret) string {
	t.Helper()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")

		var answer any = s
		if r.Method != http.MethodGet || r.URL.Path != "/api/v1/namespaces/"+s.Namespace+"/secrets/"+s.Name {
			w.WriteHeader(http.StatusNotFound)

			answer = metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound}
		}

		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)

	return write(t, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
contexts: [{name: one, context: {cluster: c}}]
current-context: one
`, server.URL))
}

func TestThePasswordOfARepositoryIsThatOfTheDocumentedCommand(t *testing.T) {
	t.Parallel()

	asText := secret("velero")
	asText.Data, asText.StringData = nil, map[string]string{"key": goldenKey + "\n"}

	asJSON, err := json.Marshal(secret("velero"))
	require.NoError(t, err)

	for name, c := range map[string]struct {
		stdin string
		args  []string
	}{
		"from a file with the key alone":      {args: []string{"--key-file", write(t, goldenKey+"\n")}},
		"from a file with the Secret":         {args: []string{"--key-file", write(t, manifest(t, secret("velero")))}},
		"from a Secret in JSON":               {args: []string{"--key-file", write(t, string(asJSON))}},
		"from a Secret written by hand":       {args: []string{"--key-file", write(t, manifest(t, asText))}},
		"from the standard input":             {stdin: goldenKey, args: []string{"--key-file", "-"}},
		"from a Secret at the standard input": {stdin: manifest(t, secret("velero")), args: []string{"--key-file=-"}},
		"from the cluster":                    {args: []string{"--kubeconfig", cluster(t, secret("velero"))}},
		"from a context and a namespace":      {args: []string{"--kubeconfig", cluster(t, secret("backups")), "--context", "one", "-n", "backups"}},
		"from a file, whatever cluster there is": {args: []string{
			"--key-file", write(t, goldenKey), "--kubeconfig", write(t, nowhere),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			out, err := run(t, c.stdin, append([]string{"derive", "--repository", goldenID}, c.args...)...)
			require.NoError(t, err)
			require.Equal(t, goldenPassword+"\n", out)
		})
	}
}

func TestAnExportIsReadyToBeApplied(t *testing.T) {
	t.Parallel()

	const want = `# The master key of Estiba's backups; its fingerprint is 48db8a4edf147f435f7ced6d2112ca88.
apiVersion: v1
data:
  key: Z0lHQ2c0U0Zob2VJaVlxTGpJMk9qNUNSa3BPVWxaYVhtSm1hbTV5ZG5wOD0=
kind: Secret
metadata:
  labels:
    velero.io/exclude-from-backup: "true"
  name: estiba-master-key
  namespace: NAMESPACE
type: Opaque
`

	for name, c := range map[string]struct {
		args      []string
		namespace string
	}{
		"from the cluster":                             {[]string{"--kubeconfig", cluster(t, secret("velero"))}, "velero"},
		"from the namespace that is asked for":         {[]string{"--kubeconfig", cluster(t, secret("backups")), "-n", "backups"}, "backups"},
		"from a file, with its namespace":              {[]string{"--key-file", write(t, manifest(t, secret("backups")))}, "backups"},
		"from a file, for another namespace":           {[]string{"--key-file", write(t, manifest(t, secret("backups"))), "-n", "other"}, "other"},
		"from a key alone, for Velero's own namespace": {[]string{"--key-file", write(t, goldenKey)}, "velero"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			out, err := run(t, "", append([]string{"export"}, c.args...)...)
			require.NoError(t, err)
			require.Equal(t, strings.ReplaceAll(want, "NAMESPACE", c.namespace), out)

			again, err := run(t, out, "export", "--key-file", "-")
			require.NoError(t, err)
			require.Equal(t, out, again)
		})
	}
}

func TestAnExportReplacesNoFile(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key.yaml")

	out, err := run(t, goldenKey, "export", "--key-file", "-", "-o", path)
	require.NoError(t, err)
	require.Empty(t, out)

	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	before, err := os.ReadFile(path)
	require.NoError(t, err)

	_, err = run(t, goldenKey, "export", "--key-file", "-", "-n", "other", "-o", path)
	require.ErrorIs(t, err, os.ErrExist)

	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))

	derived, err := run(t, "", "derive", "--repository", goldenID, "--key-file", path)
	require.NoError(t, err)
	require.Equal(t, goldenPassword+"\n", derived)
}

func TestWhatIsNoKeyIsRefusedWithoutBeingQuoted(t *testing.T) {
	t.Parallel()

	const secretWord = "c3RhdGljLXBhc3N3MHJk" // a well-known password in base64

	weak := secret("velero")
	weak.Data["key"] = []byte(secretWord)

	empty := secret("velero")
	empty.Data = nil

	for name, c := range map[string]struct {
		args  []string
		stdin string
		says  string
	}{
		"an ID that is none":           {[]string{"--repository", "../other", "--key-file", "-"}, goldenKey, "is not a repository ID"},
		"no ID":                        {[]string{"--repository", "", "--key-file", "-"}, goldenKey, "--repository"},
		"the key as an argument":       {[]string{secretWord}, "", "unknown command"},
		"an empty file":                {[]string{"--key-file", "-"}, "", "standard input: it is no manifest of a Secret"},
		"a word":                       {[]string{"--key-file", "-"}, secretWord, "it has 15 bytes"},
		"a broken manifest":            {[]string{"--key-file", "-"}, "kind: Secret\ndata: " + secretWord, "not base64"},
		"a manifest of something else": {[]string{"--key-file", "-"}, "kind: ConfigMap\ndata: {key: " + secretWord + "}", "it is no manifest of a Secret"},
		"a Secret without it":          {[]string{"--key-file", "-"}, manifest(t, empty), `has no key "key"`},
		"a Secret with a weak one":     {[]string{"--key-file", "-"}, manifest(t, weak), "Secret estiba-master-key: the master key is not 32 random bytes"},
		"a file that is too large":     {[]string{"--key-file", "-"}, strings.Repeat(secretWord, 60_000), "larger than"},
		"a file that is not there":     {[]string{"--key-file", "/nonexistent/file"}, "", "/nonexistent/file"},
		"a weak one in the cluster":    {[]string{"--kubeconfig", cluster(t, weak)}, "", "not 32 random bytes"},
		"none in the cluster":          {[]string{"--kubeconfig", cluster(t, secret("elsewhere"))}, "", "Secret velero/estiba-master-key does not exist"},
		"no cluster":                   {[]string{"--kubeconfig", write(t, nowhere)}, "", "--key-file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			out, err := run(t, c.stdin, append([]string{"derive", "--repository", goldenID}, c.args...)...)
			require.ErrorContains(t, err, c.says)
			require.Empty(t, out)

			for _, hidden := range []string{goldenKey, secretWord[:10], base64.StdEncoding.EncodeToString([]byte(goldenKey))} {
				if name != "the key as an argument" { // it is in the process list already
					require.NotContains(t, err.Error(), hidden)
				}
			}
		})
	}
}
