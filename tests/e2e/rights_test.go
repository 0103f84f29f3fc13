//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// afterAll is set when all end-to-end tests have run before on this cluster.
const afterAll = "ESTIBA_E2E_AFTER_ALL"

// right is something that a service account may do.
type right struct{ account, group, resource, verb, name string }

func (r right) String() string {
	s := fmt.Sprintf("%s: %s %s", r.account, r.verb, r.resource)
	if r.group != "" {
		s += "." + r.group
	}

	if r.name != "" {
		s += " " + r.name
	}

	return s
}

// unexercised are rights that no end-to-end test has a use for, and why they are granted.
func unexercised() map[right]string {
	const late, repeats = "removes jobs hours after their end", "client-go counts events that repeat so"

	return map[right]string{
		{"estiba-controller", "estiba.dev", "volumebackups", "delete", ""}:     late,
		{"estiba-controller", "estiba.dev", "volumerestores", "delete", ""}:    late,
		{"estiba-controller", "estiba.dev", "snapshotdeletions", "delete", ""}: late,
		{"estiba-controller", "", "events", "patch", ""}:                       repeats,
		{"estiba-node", "", "events", "patch", ""}:                             repeats,
	}
}

// request is what the API server's audit log tells of a request.
type request struct {
	Verb, UserAgent string
	User            struct{ Username string }
	ObjectRef       *struct{ Resource, Subresource, Namespace, Name, APIGroup string }
	Annotations     map[string]string
}

// right returns what the request needed, of the account.
func (r request) right(account string) right {
	resource := r.ObjectRef.Resource
	if r.ObjectRef.Subresource != "" {
		resource += "/" + r.ObjectRef.Subresource
	}

	return right{account, r.ObjectRef.APIGroup, resource, r.Verb, r.ObjectRef.Name}
}

// What daemon and controller do, as the API server has noted it down, is what they
// are granted: nothing was refused, and after all tests nothing is left over.
func TestNoRightIsGrantedThatIsNotUsed(t *testing.T) {
	c := open(t)
	granted := map[right]string{} // and by which kind of role

	for _, account := range []string{"estiba-node", "estiba-controller"} {
		for r, kind := range c.granted(account) {
			granted[r] = kind
		}
	}

	used, refused, requests := map[right]bool{}, map[string]bool{}, 0

	require.NoError(t, eachRequest(func(r request) {
		account, ours := strings.CutPrefix(r.User.Username, "system:serviceaccount:"+c.Namespace+":")
		// A test that plays a thief has another name.
		if !ours || r.ObjectRef == nil || !strings.HasPrefix(r.UserAgent, "mover/") {
			return
		}

		requests++

		for _, named := range []bool{true, false} {
			need := r.right(account)
			if !named {
				need.name = ""
			}

			if kind := granted[need]; kind == "ClusterRole" || kind == "Role" && r.ObjectRef.Namespace == c.Namespace {
				// It may have been refused while a test had taken the roles away.
				if r.Annotations["authorization.k8s.io/decision"] == "allow" {
					used[need] = true
				}

				return
			}
		}

		if r.Annotations["authorization.k8s.io/decision"] != "allow" {
			refused[fmt.Sprintf("%s in namespace %q", r.right(account), r.ObjectRef.Namespace)] = true
		}
	}))

	if requests == 0 {
		t.Skip("the API server has noted nothing down: the cluster was started for another namespace of Velero's")
	}

	assert.Empty(t, refused, "this was asked for and is not granted")

	var unused []string

	reasons := unexercised()
	for r := range granted {
		if !used[r] && reasons[r] == "" {
			unused = append(unused, r.String())
		}
	}

	for r := range reasons {
		assert.Contains(t, granted, r, "it has a reason, and is not granted")
	}

	slices.Sort(unused)
	t.Logf("%d requests used %d of %d rights; not used:\n%s", requests, len(used), len(granted), strings.Join(unused, "\n"))

	if os.Getenv(afterAll) != "" {
		assert.Empty(t, unused, "this is granted, and no test used it")
	}
}

// granted returns what the roles of an account grant.
func (c *cell) granted(account string) map[right]string {
	c.t.Helper()

	var (
		role    rbacv1.Role
		cluster rbacv1.ClusterRole
	)

	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: account}, &role))
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Name: account}, &cluster))

	all := map[right]string{}
	add := func(kind string, rules []rbacv1.PolicyRule) {
		for _, rule := range rules {
			names := append([]string{}, rule.ResourceNames...)
			if len(names) == 0 {
				names = []string{""}
			}

			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						for _, name := range names {
							all[right{account, group, resource, verb, name}] = kind
						}
					}
				}
			}
		}
	}

	add("Role", role.Rules)
	add("ClusterRole", cluster.Rules)

	return all
}

// eachRequest reads the audit log of the local cluster's API server.
func eachRequest(do func(request)) (err error) {
	logs, err := filepath.Glob(filepath.Join(os.Getenv("ESTIBA_CLUSTER_INSIDE"), "nodes/*/logs/audit*.jsonl"))
	if err != nil {
		return err
	}

	for _, path := range logs {
		if err := eachRequestIn(path, do); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}

	return nil
}

func eachRequestIn(path string, do func(request)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()

	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // The rest is being written.
		}

		if err != nil {
			return err
		}

		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}

		do(r)
	}
}
