package config_test

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/config"
)

func parse(t *testing.T, role config.Role, env map[string]string, args ...string) (config.Config, error) {
	t.Helper()

	c := config.Default(role, func(k string) string { return env[k] })
	f := pflag.NewFlagSet("mover", pflag.ContinueOnError)
	c.AddFlags(f)
	require.NoError(t, f.Parse(args))

	return c, c.Validate()
}

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()

	c, err := parse(t, config.RoleNode, map[string]string{"NODE_NAME": "n1", "VELERO_NAMESPACE": "backup"})
	require.NoError(t, err)
	assert.Equal(t, "n1", c.NodeName)
	assert.Equal(t, "backup", c.Namespace)

	c, err = parse(t, config.RoleController, nil)
	require.NoError(t, err)
	assert.Equal(t, "velero", c.Namespace)
	assert.True(t, c.LeaderElection)
}

func TestFlagsAreTaken(t *testing.T) {
	t.Parallel()

	c, err := parse(t, config.RoleNode, nil, "--node-name=n2", "--upload-limit=10Mi", "--gate-timeout=7m", "--attempts=5")
	require.NoError(t, err)
	assert.Equal(t, int64(10<<20), c.UploadLimit)
	assert.Equal(t, 7*time.Minute, c.Bounds.Gate)
	assert.Equal(t, int32(5), c.Bounds.Attempts)
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		role  config.Role
		args  []string
		names string
	}{
		"no node":               {config.RoleNode, nil, "--node-name"},
		"no slot":               {config.RoleController, []string{"--slots=0"}, "--slots"},
		"a relative folder":     {config.RoleController, []string{"--cache-dir=cache"}, "--cache-dir"},
		"an unknown format":     {config.RoleController, []string{"--repository-format=x"}, "--repository-format"},
		"an unknown log level":  {config.RoleController, []string{"--log-level=x"}, "--log-level"},
		"no time at all":        {config.RoleController, []string{"--job-retention=0s"}, "--job-retention"},
		"a gate without time":   {config.RoleNode, []string{"--node-name=n1", "--missing-job-timeout=0s"}, "--missing-job-timeout is 0s"},
		"a slow heartbeat":      {config.RoleNode, []string{"--node-name=n1", "--heartbeat=1m"}, "--heartbeat"},
		"a cache of some bytes": {config.RoleController, []string{"--cache-total=6"}, "--cache-total"},
		"a limit below nothing": {config.RoleController, []string{"--upload-limit=-1"}, "--upload-limit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, err := parse(t, c.role, nil, c.args...)
			assert.ErrorContains(t, err, c.names)
		})
	}
}
