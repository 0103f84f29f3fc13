package parts

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestModuleFile(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		part     Part
		upstream string
		want     []string
		unwanted []string
	}{
		"takes over Go version, GODEBUG defaults and replace directives": {
			part: Part{Name: "p", Module: "example.com/p", Version: "v1.2.3"},
			upstream: `{"Go":"1.24.0","GoDebug":[{"Key":"default","Value":"go1.24"}],
				"Replace":[{"Old":{"Path":"a.b/c"},"New":{"Path":"d.e/f","Version":"v0.1.0"}},
				           {"Old":{"Path":"a.b/g","Version":"v1.0.0"},"New":{"Path":"d.e/h","Version":"v0.2.0"}}]}`,
			want: []string{
				"module estiba.test/p\n", "go 1.24.0\n", "godebug default=go1.24\n", "require example.com/p v1.2.3\n",
				"replace a.b/c => d.e/f v0.1.0\n", "replace a.b/g v1.0.0 => d.e/h v0.2.0\n",
			},
		},
		"turns Kubernetes' staging folders into published versions": {
			part:     Part{Name: "kubernetes", Module: "k8s.io/kubernetes", Version: "v1.34.4"},
			upstream: `{"Go":"1.24.0","Replace":[{"Old":{"Path":"k8s.io/api"},"New":{"Path":"./staging/src/k8s.io/api"}}]}`,
			want:     []string{"replace k8s.io/api => k8s.io/api v0.34.4\n"},
		},
		"leaves out other folders, which are published under the required version": {
			part:     Part{Name: "etcd", Module: "go.etcd.io/etcd/server/v3", Version: "v3.6.8"},
			upstream: `{"Go":"1.24.0","Replace":[{"Old":{"Path":"go.etcd.io/etcd/api/v3"},"New":{"Path":"../api"}}]}`,
			unwanted: []string{"replace"},
		},
		"prefers our own replacement": {
			part:     Part{Name: "p", Module: "example.com/p", Version: "v1.2.3", Replaces: map[string]string{"a.b/c": "a.b/c v0.9.0"}},
			upstream: `{"Go":"1.24.0","Replace":[{"Old":{"Path":"a.b/c"},"New":{"Path":"d.e/f","Version":"v0.1.0"}}]}`,
			want:     []string{"replace a.b/c => a.b/c v0.9.0\n"},
			unwanted: []string{"d.e/f"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := moduleFile(tc.part, []byte(tc.upstream))
			require.NoError(t, err)
			for _, line := range tc.want {
				assert.Contains(t, got, line)
			}
			for _, text := range tc.unwanted {
				assert.NotContains(t, got, text)
			}
		})
	}
}

func TestModuleFileRefusesWhatIsNoJSON(t *testing.T) {
	t.Parallel()
	_, err := moduleFile(Part{Module: "example.com/p", Version: "v1.0.0"}, []byte("no"))
	require.ErrorContains(t, err, "example.com/p v1.0.0")
}

func TestEveryProgramHasOneNameAndAnEstimate(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, p := range All() {
		for _, b := range p.Binaries {
			assert.NotContains(t, seen, b.Name, "%s and %s have a program of the same name", seen[b.Name], p.Name)
			seen[b.Name] = p.Name
			assert.Positive(t, b.Estimate, "%s has no estimate", b.Name)
			if p.Main != "" {
				assert.Equal(t, ".", b.Package, "%s is the main package written here", b.Name)
				assert.Contains(t, p.Main, `"`+p.Module+"/", "%s is of module %s", b.Name, p.Module)
				continue
			}
			assert.True(t, strings.HasPrefix(b.Package, p.Module), "%s is not in module %s", b.Package, p.Module)
		}
	}
	assert.Contains(t, seen, "kubelet")
}

func TestMissingListsWhatIsNotBuilt(t *testing.T) {
	t.Parallel()
	part := Part{Name: "p", Version: "v1", Binaries: []Binary{{"a", "x/a", time.Minute}, {"b", "x/b", time.Second}}}
	c := Cache{Dir: t.TempDir(), Log: io.Discard}
	assert.Equal(t, time.Minute+time.Second, Remaining(c.Missing([]Part{part})))

	require.NoError(t, os.MkdirAll(filepath.Dir(c.Path(part, "a")), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(c.Path(part, "b")), ".b.part"), nil, 0o755))
	require.NoError(t, os.WriteFile(c.Path(part, "a"), nil, 0o755))
	missing := c.Missing([]Part{part})
	require.Len(t, missing, 1, "half a build counts for nothing")
	assert.Equal(t, "b", missing[0].Binary.Name)
}

// A stand-in for the go command shows what Build makes of its behaviour without a minute of compiling.
func TestBuild(t *testing.T) {
	t.Parallel()
	const answers = `#!/bin/sh
case "$1 $2" in
"mod download") echo '{"GoMod":"x"}' ;;
"mod edit") echo '{"Go":"1.24.0"}' ;;
build*)
	while [ "$1" != -o ]; do shift; done
	echo program > "$2"
	;;
esac
`
	tests := map[string]struct {
		script  string
		wantErr string
	}{
		"puts the program into the cache": {script: answers},
		"leaves nothing under the program's name when the build fails": {
			script: strings.Replace(answers, "program > \"$2\"", "half > \"$2\"; exit 1", 1), wantErr: "build prog of p-v1",
		},
		"names the module when it can't be downloaded": {
			script: "#!/bin/sh\necho '{\"Error\":\"no such module\"}'; exit 1\n", wantErr: "download example.com/p v1: no such module",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			script := filepath.Join(dir, "go")
			require.NoError(t, os.WriteFile(script, []byte(tc.script), 0o755))
			c := Cache{Dir: filepath.Join(dir, "cache"), Go: script, Log: io.Discard}
			part := Part{Name: "p", Version: "v1", Module: "example.com/p", Main: "package main"}
			err := c.Build(context.Background(), Task{part, Binary{Name: "prog", Package: "example.com/p"}})
			if tc.wantErr != "" {
				require.ErrorContains(t, err, tc.wantErr)
				assert.NoFileExists(t, c.Path(part, "prog"))
				return
			}
			require.NoError(t, err)
			assert.FileExists(t, c.Path(part, "prog"))
			assert.FileExists(t, filepath.Join(c.Dir, "p-v1", "module", "go.mod"))
			assert.FileExists(t, filepath.Join(c.Dir, "p-v1", "module", "main.go"))
		})
	}
}
