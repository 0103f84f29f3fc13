//go:build slow

package conformance_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOtherVeleros runs the tests of this package once more with each Velero that Estiba supports beside the
// one that it is built with: the same plugin, called by that Velero's own code.
func TestOtherVeleros(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)

	list, err := exec.CommandContext(t.Context(), self, "-test.list", ".").Output()
	require.NoError(t, err)

	for _, version := range []string{"v1.16", "v1.17"} {
		t.Run(version, func(t *testing.T) {
			driver := buildDriver(t, version)

			for _, name := range strings.Fields(string(list)) {
				// These are about the Velero in the test itself, or about none.
				if slices.Contains([]string{"TestOtherVeleros", "TestVeleroFindsTheActions", "TestStartIsQuickAndTheBinarySmall", "TestThePluginHoldsNoKopia"}, name) {
					continue
				}

				t.Run(name, func(t *testing.T) {
					cmd := exec.CommandContext(t.Context(), self, "-test.run", "^"+name+"$", "-test.v")
					cmd.Env = append(os.Environ(), driverVariable+"="+driver, pluginVariable+"="+pluginDir)

					out, err := cmd.CombinedOutput()
					require.NoError(t, err, "%s", out)
					require.Contains(t, string(out), "--- PASS: "+name, "%s", out)
				})
			}
		})
	}
}

// buildDriver builds the driver with the module file of a version.
func buildDriver(t *testing.T, version string) string {
	t.Helper()

	driver := filepath.Join(t.TempDir(), "velerodriver")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-modfile", "velerodriver/"+version+".mod", "-o", driver, "./velerodriver")

	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)

	out, err = exec.CommandContext(t.Context(), "go", "version", "-m", driver).Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "github.com/vmware-tanzu/velero\t"+version+".", "the driver has that Velero in it")

	return driver
}
