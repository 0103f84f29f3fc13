package conformance_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
	"github.com/vmware-tanzu/velero/pkg/plugin/framework"
)

// pluginDir is set by TestMain: the folder that holds the plugin as Velero sees it,
// built once for all tests.
var pluginDir string

// TestMain plays the part of the velero executable: Velero runs itself, with
// the argument run-plugins, for the plugins that are built into it, and hands
// the flags of its server over to every plugin.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "run-plugins" {
		framework.NewServer().BindFlags(pflag.NewFlagSet("velero", pflag.ContinueOnError)).Serve()

		return
	}

	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "estiba-conformance-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)

		return 1
	}
	defer os.RemoveAll(dir)

	if pluginDir = os.Getenv(pluginVariable); pluginDir != "" {
		return serving(m)
	}

	pluginDir = filepath.Join(dir, "plugins")

	build := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-ldflags", "-s -w",
		"-o", filepath.Join(pluginDir, "estiba"), "github.com/estiba-dev/estiba/cmd/velero-plugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")

	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the plugin: %v\n%s", err, out)

		return 1
	}

	return serving(m)
}

func serving(m *testing.M) int {
	// What a server hands over, among it flags that no plugin knows.
	os.Args = []string{os.Args[0], "server", "--log-level=debug", "--features=EnableCSI", "--uploader-type=kopia", "--some-flag-of-tomorrow=1"}

	return m.Run()
}
