package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInstall(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(from, "estiba"), []byte("new"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(from, "folder"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(to, "estiba"), []byte("an older and longer one"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(to, "other"), []byte("somebody else's"), 0o600))

	var log bytes.Buffer
	require.NoError(t, install(from, to, &log))
	assert.Contains(t, log.String(), filepath.Join(to, "estiba"))

	got, err := os.ReadFile(filepath.Join(to, "estiba"))
	require.NoError(t, err)
	assert.Equal(t, "new", string(got))

	info, err := os.Stat(filepath.Join(to, "estiba"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(executable), info.Mode().Perm())

	entries, err := os.ReadDir(to)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "nothing is left over, and nothing of others is touched")
}

func TestInstallSaysWhatIsWrong(t *testing.T) {
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "estiba"), []byte("x"), 0o600))

	for name, tt := range map[string]struct{ from, to, says string }{
		"no folder of plugins":  {from: filepath.Join(full, "none"), to: t.TempDir(), says: "look for plugins"},
		"no plugins":            {from: t.TempDir(), to: t.TempDir(), says: "holds none"},
		"no folder for plugins": {from: full, to: filepath.Join(full, "none"), says: "install plugin estiba"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, install(tt.from, tt.to, &bytes.Buffer{}), tt.says)
		})
	}
}
