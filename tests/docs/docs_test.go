// Package docs keeps the documentation true where a program can tell: links
// lead somewhere, and the references name every reason and metric.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()

	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)

	return string(b)
}

func pages(t *testing.T) []string {
	t.Helper()

	var found []string

	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "examples/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)

		for _, path := range paths {
			rel, err := filepath.Rel(root, path)
			require.NoError(t, err)

			found = append(found, rel)
		}
	}

	require.Contains(t, found, "README.md")

	return found
}

var link = regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()

	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}

			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}

			leads(t, page, target, m[2])
		}
	}
}

// leads requires a file to be there, and a heading of that anchor to be in it.
func leads(t *testing.T, from, target, anchor string) {
	t.Helper()

	if _, err := os.Stat(filepath.Join(root, target)); !assert.NoError(t, err, "%s links to %s", from, target) || anchor == "" {
		return
	}

	assert.Contains(t, anchors(read(t, target)), anchor, "%s links to %s", from, target)
}

var (
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	// unspoken is what a forge leaves out of an anchor.
	unspoken = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors returns the anchors of a page's headings, as forges make them.
func anchors(text string) []string {
	var all []string

	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		all = append(all, strings.ReplaceAll(unspoken.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}

	return all
}

func TestReferencesNameEverything(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		source, pattern, page, prefix string
	}{
		"reasons of jobs":          {"mover/state/reasons.go", `Reason\w+ = "(\w+)"`, "docs/reasons.md", ""},
		"codes of workers":         {"mover/engine/errors.go", `Code\w+ Code = "(\w+)"`, "docs/reasons.md", ""},
		"reasons of verdicts":      {"plugins/volumeselect/verdict.go", `Reason\w+ Reason = "(\w+)"`, "docs/reasons.md", ""},
		"reasons of omissions":     {"mover/engine/omissions.go", `Omitted\w+ +OmissionReason = "(\w+)"`, "docs/reasons.md", ""},
		"keys of the ConfigMap":    {"plugins/settings/settings.go", `key\w+ += "([\w-]+)"`, "docs/settings.md", ""},
		"keys of the gate":         {"plugins/settings/gate.go", `key\w+ += "(\w+)"`, "docs/settings.md", ""},
		"metrics":                  {"mover/metrics/metrics.go", `(?:counters|durations|gauges)\("(\w+)"`, "docs/metrics.md", "estiba_"},
		"metrics of object stores": {"mover/metrics/metrics.go", `"(store_\w+)":`, "docs/metrics.md", "estiba_"},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			page := read(t, test.page)
			found := regexp.MustCompile(test.pattern).FindAllStringSubmatch(read(t, test.source), -1)
			require.NotEmpty(t, found)

			for _, m := range found {
				if name := test.prefix + m[1]; !strings.Contains(page, "`"+name+"`") {
					t.Errorf("%s says nothing of %s", test.page, name)
				}
			}
		})
	}
}
