package docs

import (
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

func workflows(t *testing.T) []string {
	t.Helper()

	paths, err := filepath.Glob(filepath.Join(root, ".github/workflows/*.yml"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)

	for i, p := range paths {
		paths[i] = ".github/workflows/" + filepath.Base(p)
	}

	return paths
}

var (
	uses = regexp.MustCompile(`(?m)^\s*(?:- )?uses: (.+)$`)
	// pinned is an action by its commit, with the release that the commit is.
	pinned = regexp.MustCompile(`^([\w.-]+/[\w./-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)$`)
)

func TestActionsArePinnedByOneCommitEach(t *testing.T) {
	t.Parallel()

	pins := map[string]string{}

	for _, file := range workflows(t) {
		for _, m := range uses.FindAllStringSubmatch(read(t, file), -1) {
			if strings.HasPrefix(m[1], "./") {
				continue
			}

			pin := pinned.FindStringSubmatch(m[1])
			if !assert.NotNil(t, pin, "%s uses %s: write action@commit # release", file, m[1]) {
				continue
			}

			if old, known := pins[pin[1]]; known {
				assert.Equal(t, old, pin[2], "%s is pinned twice, differently", pin[1])
			}

			pins[pin[1]] = pin[2]
		}
	}

	assert.NotEmpty(t, pins)
}

// A workflow does what anybody can do at home.
func TestWorkflowsCallTargetsOfTheMakefile(t *testing.T) {
	t.Parallel()

	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets[m[1]] = true
	}

	called := map[string]bool{}

	for _, file := range workflows(t) {
		for _, m := range regexp.MustCompile(`(?m)run: .*\bmake ([a-z0-9-]+)`).FindAllStringSubmatch(read(t, file), -1) {
			assert.True(t, targets[m[1]], "%s calls make %s", file, m[1])

			called[m[1]] = true
		}
	}

	for _, target := range []string{"check", "test", "test-unit", "test-slow", "release-files"} {
		assert.True(t, called[target], "no workflow calls make %s", target)
	}
}

func TestDependencyUpdatesKnowEveryModule(t *testing.T) {
	t.Parallel()

	var config struct {
		Updates []struct {
			Ecosystem   string   `json:"package-ecosystem"`
			Directory   string   `json:"directory"`
			Directories []string `json:"directories"`
		} `json:"updates"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, ".github/dependabot.yml")), &config))

	var named []string

	for _, u := range config.Updates {
		if u.Ecosystem != "gomod" {
			continue
		}

		if u.Directory != "" {
			named = append(named, u.Directory)
		}

		named = append(named, u.Directories...)
	}

	var there []string

	for _, pattern := range []string{"go.mod", "*/go.mod", "*/*/go.mod"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)

		for _, p := range paths {
			rel, err := filepath.Rel(root, filepath.Dir(p))
			require.NoError(t, err)

			there = append(there, path.Join("/", rel))
		}
	}

	assert.ElementsMatch(t, there, named)
}

// A form that GitHub can't read is shown to nobody, and nothing says so.
func TestIssueFormsAreWhole(t *testing.T) {
	t.Parallel()

	for _, file := range []string{"bug.yml", "wish.yml"} {
		var form struct {
			Name, Description string
			Labels            []string
			Body              []struct {
				Type, ID   string
				Attributes struct {
					Label, Description, Value, Render string
					Options                           []any
				}
				Validations struct{ Required bool }
			}
		}
		require.NoError(t, yaml.UnmarshalStrict([]byte(read(t, ".github/ISSUE_TEMPLATE/"+file)), &form), file)

		assert.NotEmpty(t, form.Name, file)
		assert.NotEmpty(t, form.Description, file)
		assert.NotEmpty(t, form.Body, file)

		ids := map[string]bool{}

		for _, field := range form.Body {
			switch field.Type {
			case "markdown":
				assert.NotEmpty(t, field.Attributes.Value, file)

				continue
			case "dropdown", "checkboxes":
				assert.NotEmpty(t, field.Attributes.Options, "%s: %s", file, field.ID)
			case "input", "textarea":
			default:
				t.Errorf("%s: GitHub knows no field of type %q", file, field.Type)
			}

			assert.NotEmpty(t, field.Attributes.Label, file)
			assert.False(t, field.ID == "" || ids[field.ID], "%s: the ID %q is empty or twice there", file, field.ID)

			ids[field.ID] = true
		}
	}
}
