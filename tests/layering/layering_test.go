package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	kopia     = "github.com/kopia/kopia"
	amazonSDK = "github.com/aws/"
)

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,Deps,Standard"}, args...)...)
	cmd.Dir = "../.."

	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())

	var pkgs []pkg

	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}

		pkgs = append(pkgs, p)
	}

	require.NoError(t, cmd.Wait())

	return pkgs
}

func production(t *testing.T) []pkg {
	t.Helper()

	return list(t, "./cmd/...", "./mover/...", "./plugins/...")
}

func TestPackagesImportOnlyWhatTheArrowsAllow(t *testing.T) {
	t.Parallel()

	for _, p := range production(t) {
		room := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := arrows[room]
		assert.True(t, known, "package %s is in no room: add it to arrows, and say why in docs/adr", room)

		for _, imported := range p.Imports {
			target, own := strings.CutPrefix(imported, module)
			if own && !allows(allowed, target) {
				t.Errorf("%s imports %s, and no arrow allows it", room, target)
			}
		}
	}
}

func TestEveryArrowIsUsed(t *testing.T) {
	t.Parallel()

	for _, p := range production(t) {
		room := strings.TrimPrefix(p.ImportPath, module)
		for _, target := range arrows[room] {
			if !strings.HasSuffix(target, "/") {
				assert.Contains(t, p.Imports, module+target, "the arrow %s → %s is not used: take it away", room, target)
			}
		}
	}
}

func TestEveryRoomOfTheArrowsExists(t *testing.T) {
	t.Parallel()

	var rooms []string
	for _, p := range production(t) {
		rooms = append(rooms, strings.TrimPrefix(p.ImportPath, module))
	}

	for room := range arrows {
		assert.Contains(t, rooms, room)
	}
}

func allows(allowed []string, target string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		return a == target || (strings.HasSuffix(a, "/") && strings.HasPrefix(target, a))
	})
}

func TestLibrariesStayInTheirRooms(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		library string
		rooms   []string
	}{
		"kopia in the engine's":        {kopia, kopiaRooms},
		"Amazon's SDK where roles are": {amazonSDK, amazonRooms},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			for _, p := range production(t) {
				room := strings.TrimPrefix(p.ImportPath, module)
				if slices.Contains(c.rooms, room) {
					continue
				}

				for _, imported := range p.Imports {
					assert.False(t, strings.HasPrefix(imported, c.library), "%s imports %s", room, imported)
				}
			}
		})
	}
}

func TestWhatVeleroLoadsLinksNeitherKopiaNorAmazonsSDK(t *testing.T) {
	t.Parallel()

	for _, p := range list(t, "./cmd/velero-plugin") {
		for _, dep := range p.Deps {
			assert.False(t, strings.HasPrefix(dep, kopia) || strings.HasPrefix(dep, amazonSDK), "the plugin links %s", dep)
		}
	}
}

func TestSmallRoomsUseTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()

	allowed := func(dep string) bool {
		first, _, _ := strings.Cut(dep, "/")

		return !strings.Contains(first, ".") || strings.HasPrefix(dep, "golang.org/x/sys/") || strings.HasPrefix(dep, module)
	}

	for _, room := range standardLibraryOnly {
		for _, p := range list(t, "./"+room) {
			for _, dep := range p.Deps {
				assert.True(t, allowed(dep), "%s links %s", room, dep)
			}
		}
	}
}
