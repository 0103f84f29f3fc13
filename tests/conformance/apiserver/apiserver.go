// Package apiserver is just enough of a Kubernetes API server for the plugin's
// client: it reads, lists by label, creates and merge-patches objects that it
// keeps in a map. It validates nothing, has no watches and must not be taken for
// evidence of how the real one behaves.
package apiserver

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// Server is a running API server.
type Server struct {
	kinds map[string]string
	http  *httptest.Server

	mu      sync.Mutex
	objects map[string]map[string]any
	calls   []string
	made    int
}

// Resources are what a server serves: the kind by the path of the resource's
// group, version and plural name, such as "api/v1/pods".
type Resources map[string]string

// Start runs a server for the test's time.
func Start(t *testing.T, served Resources) *Server {
	t.Helper()

	s := &Server{kinds: maps.Clone(served), objects: map[string]map[string]any{}}
	s.http = httptest.NewServer(s)
	t.Cleanup(s.http.Close)

	return s
}

// Kubeconfig writes a file by which a client finds the server, and returns its path.
func (s *Server) Kubeconfig(t *testing.T) string {
	t.Helper()

	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":%q}}],
"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"users":[{"name":"u","user":{"token":"t"}}]}`, s.http.URL)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))

	return path
}

// Put stores an object under the resource's path, whatever was there.
func (s *Server) Put(t *testing.T, resource string, object metav1.Object) {
	t.Helper()

	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	require.NoError(t, err)

	s.mu.Lock()
	defer s.mu.Unlock()

	s.objects[key(resource, object.GetNamespace(), object.GetName())] = s.complete(resource, content)
}

// All decodes the objects of a resource, sorted by name.
func All[T any](t *testing.T, s *Server, resource string) []T {
	t.Helper()

	s.mu.Lock()
	defer s.mu.Unlock()

	var list []T

	for _, k := range slices.Sorted(maps.Keys(s.objects)) {
		if !strings.HasPrefix(k, resource+"|") {
			continue
		}

		var object T
		require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(s.objects[k], &object))

		list = append(list, object)
	}

	return list
}

// Calls returns the calls since the last time, as METHOD and path.
func (s *Server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()

	calls := s.calls
	s.calls = nil

	return calls
}

// Withdraw stops serving a resource, as if its definition were removed.
func (s *Server) Withdraw(resource string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	delete(s.kinds, resource)
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.calls = append(s.calls, r.Method+" "+r.URL.Path)

	p, ok := parse(r.URL.Path)
	if !ok || s.kinds[p.resource] == "" {
		http.Error(w, "404 page not found", http.StatusNotFound)

		return
	}

	switch {
	case r.Method == http.MethodGet && p.name == "":
		s.list(w, r, p)
	case r.Method == http.MethodPost:
		s.create(w, r, p)
	case r.Method == http.MethodGet:
		s.reply(w, p)
	case r.Method == http.MethodPatch:
		s.patch(w, r, p)
	default:
		refuse(w, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, r.Method)
	}
}

type place struct{ resource, namespace, name string }

func (p place) key() string { return key(p.resource, p.namespace, p.name) }

func key(resource, namespace, name string) string { return resource + "|" + namespace + "|" + name }

// parse takes /api/v1/... and /apis/GROUP/VERSION/... apart.
func parse(path string) (place, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")

	root := 2
	if parts[0] == "apis" {
		root = 3
	}

	if len(parts) <= root {
		return place{}, false
	}

	var p place

	rest := parts[root:]
	if rest[0] == "namespaces" && len(rest) > 2 {
		p.namespace, rest = rest[1], rest[2:]
	}

	p.resource = strings.Join(append(slices.Clone(parts[:root]), rest[0]), "/")

	if len(rest) > 1 {
		p.name = rest[1]
	}

	return p, len(rest) <= 2
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, p place) {
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())

		return
	}

	items := []any{}

	for _, k := range slices.Sorted(maps.Keys(s.objects)) {
		if strings.HasPrefix(k, p.resource+"|") && (p.namespace == "" || strings.HasPrefix(k, p.resource+"|"+p.namespace+"|")) &&
			selector.Matches(labels.Set(labelsOf(s.objects[k]))) {
			items = append(items, s.objects[k])
		}
	}

	answer(w, http.StatusOK, map[string]any{
		"apiVersion": version(p.resource), "kind": s.kinds[p.resource] + "List",
		"metadata": map[string]any{"resourceVersion": "1"}, "items": items,
	})
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, p place) {
	var object map[string]any
	if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())

		return
	}

	metadata, _ := object["metadata"].(map[string]any)
	p.name, _ = metadata["name"].(string)

	if s.objects[p.key()] != nil {
		refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists, p.name)

		return
	}

	object = s.complete(p.resource, object)
	if r.URL.Query().Get("dryRun") == "" {
		s.objects[p.key()] = object
	}

	answer(w, http.StatusCreated, object)
}

func (s *Server) patch(w http.ResponseWriter, r *http.Request, p place) {
	object := s.objects[p.key()]
	if object == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, p.name)

		return
	}

	var patch map[string]any

	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &patch)
	}

	if err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json" {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "only merge patches are known here")

		return
	}

	merged := merge(object, patch)
	s.objects[p.key()] = merged
	answer(w, http.StatusOK, merged)
}

// merge applies a JSON merge patch (RFC 7396).
func merge(into, patch map[string]any) map[string]any {
	result := maps.Clone(into)
	if result == nil {
		result = map[string]any{}
	}

	for k, v := range patch {
		inner, nested := v.(map[string]any)

		switch {
		case v == nil:
			delete(result, k)
		case nested:
			old, _ := result[k].(map[string]any)
			result[k] = merge(old, inner)
		default:
			result[k] = v
		}
	}

	return result
}

func (s *Server) reply(w http.ResponseWriter, p place) {
	if object := s.objects[p.key()]; object != nil {
		answer(w, http.StatusOK, object)
	} else {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, p.name)
	}
}

// complete adds what an API server sets by itself.
func (s *Server) complete(resource string, object map[string]any) map[string]any {
	s.made++

	object["apiVersion"], object["kind"] = version(resource), s.kinds[resource]
	metadata, _ := object["metadata"].(map[string]any)

	if metadata["uid"] == nil {
		metadata["uid"] = fmt.Sprintf("uid-%d", s.made)
	}

	if metadata["creationTimestamp"] == nil {
		metadata["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	}

	metadata["resourceVersion"] = fmt.Sprint(s.made)

	return object
}

// version returns the apiVersion of a resource's path.
func version(resource string) string {
	parts := strings.Split(resource, "/")

	return strings.Join(parts[1:len(parts)-1], "/")
}

func labelsOf(object map[string]any) map[string]string {
	metadata, _ := object["metadata"].(map[string]any)
	kept, _ := metadata["labels"].(map[string]any)
	set := map[string]string{}

	for k, v := range kept {
		set[k], _ = v.(string)
	}

	return set
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	answer(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client sees a broken answer as one
}
