package parts

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// goMod is what `go mod edit -json` says of a module, as far as a build of it depends on it.
type goMod struct {
	Go      string
	GoDebug []struct{ Key, Value string }
	Replace []struct{ Old, New moduleVersion }
}

type moduleVersion struct{ Path, Version string }

// moduleFile writes the go.mod of the small module in which a part is built. Replace directives and
// GODEBUG defaults only count in the main module, so those of the part's own go.mod are taken over.
func moduleFile(p Part, upstream []byte) (string, error) {
	var mod goMod
	if err := json.Unmarshal(upstream, &mod); err != nil {
		return "", fmt.Errorf("read go.mod of %s %s: %w", p.Module, p.Version, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "module estiba.test/%s\n\ngo %s\n\n", p.Name, mod.Go)
	for _, d := range mod.GoDebug {
		fmt.Fprintf(&b, "godebug %s=%s\n", d.Key, d.Value)
	}
	fmt.Fprintf(&b, "require %s %s\n", p.Module, p.Version)
	for _, r := range mod.Replace {
		if _, ours := p.Replaces[r.Old.Path]; ours {
			continue
		}
		if target := replacement(p, r.Old, r.New); target != "" {
			fmt.Fprintf(&b, "replace %s => %s\n", strings.TrimSpace(r.Old.Path+" "+r.Old.Version), target)
		}
	}
	for _, old := range slices.Sorted(maps.Keys(p.Replaces)) {
		fmt.Fprintf(&b, "replace %s => %s\n", old, p.Replaces[old])
	}
	return b.String(), nil
}

// replacement turns a replace target into one that works outside of the module's own source tree:
// Kubernetes points to its staging folders, which are published as modules v0.X.Y of the release v1.X.Y.
// Any other folder (etcd's siblings) is left out, because the version required beside it is published.
func replacement(p Part, old, target moduleVersion) string {
	if !strings.HasPrefix(target.Path, ".") {
		return strings.TrimSpace(target.Path + " " + target.Version)
	}
	minor, ok := strings.CutPrefix(p.Version, "v1.")
	if !ok || target.Path != "./staging/src/"+old.Path {
		return ""
	}
	return old.Path + " v0." + minor
}
