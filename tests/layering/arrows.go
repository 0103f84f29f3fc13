// Package layering holds the arrows between the project's rooms, and the test
// that keeps them: A → B means that A may import B; what is not listed is
// forbidden. The same arrows, more coarsely, stand in .golangci.yml, and in
// words in docs/architecture.md; changing one wants a record in docs/adr.
package layering

// module is the project's own module path.
const module = "github.com/estiba-dev/estiba/"

// arrows lists, for each room, the rooms of the project that its production
// code may import. A room is a package, or with a trailing slash all packages below.
var arrows = map[string][]string{
	"cmd/velero-plugin":  {"plugins/bundle"},
	"cmd/install-plugin": {},
	"cmd/mover":          {"mover/app"},
	"cmd/restore-wait":   {"mover/contract"},
	"cmd/estiba":         {"mover/keys"},

	"plugins/bundle":       {"mover/api/v1alpha1", "plugins/backup", "plugins/remove", "plugins/restore"},
	"plugins/backup":       {"mover/api/v1alpha1", "mover/contract", "mover/jobs", "plugins/operation", "plugins/settings", "plugins/volumeselect"},
	"plugins/restore":      {"mover/api/v1alpha1", "mover/contract", "mover/jobs", "plugins/operation", "plugins/settings", "plugins/volumeselect"},
	"plugins/remove":       {"mover/api/v1alpha1", "mover/contract", "mover/jobs"},
	"plugins/volumeselect": {"mover/api/v1alpha1", "mover/contract", "plugins/settings"},
	"plugins/settings":     {"mover/api/v1alpha1", "mover/contract"},
	"plugins/operation":    {"mover/api/v1alpha1", "mover/contract", "mover/jobs"},

	"mover/app":                       {"mover/"},
	"mover/api/v1alpha1":              {},
	"mover/contract":                  {},
	"mover/engine":                    {},
	"mover/beneath":                   {},
	"mover/jobs":                      {"mover/api/v1alpha1", "mover/contract"},
	"mover/state":                     {"mover/api/v1alpha1", "mover/contract"},
	"mover/controllers/node":          {"mover/api/v1alpha1", "mover/contract", "mover/controllers/podlist", "mover/controllers/target", "mover/controllers/task", "mover/engine", "mover/jobs", "mover/metrics", "mover/state"},
	"mover/controllers/cluster":       {"mover/api/v1alpha1", "mover/contract", "mover/controllers/podlist", "mover/controllers/target", "mover/controllers/task", "mover/engine", "mover/jobs", "mover/metrics", "mover/state"},
	"mover/controllers/podlist":       {},
	"mover/controllers/target":        {"mover/api/v1alpha1", "mover/contract", "mover/state"},
	"mover/controllers/task":          {"mover/api/v1alpha1", "mover/engine", "mover/state"},
	"mover/controllers/task/tasktest": {"mover/controllers/task", "mover/state"},
	"mover/runner":                    {"mover/engine", "mover/worker/protocol"},
	"mover/worker":                    {"mover/engine", "mover/worker/protocol"},
	"mover/worker/protocol":           {"mover/engine"},
	"mover/worker/workertest":         {"mover/engine", "mover/worker/protocol"},
	"mover/worker/workertest/child":   {"mover/beneath", "mover/engine", "mover/worker", "mover/worker/protocol", "mover/worker/workertest"},
	"mover/nodevolume":                {},
	"mover/gate":                      {"mover/beneath", "mover/contract"},
	"mover/store":                     {"mover/engine", "mover/store/settings"},
	"mover/store/settings":            {},
	"mover/credentials":               {"mover/credentials/role", "mover/engine", "mover/store/settings"},
	"mover/credentials/role":          {"mover/engine", "mover/store/settings"},
	"mover/keys":                      {"mover/api/v1alpha1", "mover/contract", "mover/credentials"},
	"mover/engine/kopiaengine":        {"mover/beneath", "mover/contract", "mover/engine", "mover/repository"},
	"mover/engine/enginetest":         {"mover/contract", "mover/engine"},
	"mover/repository":                {"mover/engine"},
	"mover/metrics":                   {},
	"mover/config":                    {"mover/engine", "mover/state"},
}

// standardLibraryOnly lists the rooms that import nothing but the standard
// library and golang.org/x/sys, so that anyone can import them at no cost.
var standardLibraryOnly = []string{"mover/contract", "mover/engine", "mover/beneath", "mover/worker/protocol", "mover/gate", "cmd/restore-wait", "cmd/install-plugin"}

// kopiaRooms lists the rooms that may import kopia.
var kopiaRooms = []string{"mover/engine/kopiaengine", "mover/repository", "mover/store", "mover/app"}

// amazonRooms lists the rooms that may import Amazon's SDK.
var amazonRooms = []string{"mover/credentials/role"}
