package metrics_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/metrics"
)

func TestCountsBelowZeroCountForNothing(t *testing.T) {
	m, err := metrics.New(prometheus.NewRegistry())
	require.NoError(t, err)

	require.NotPanics(t, func() {
		m.JobEnded(metrics.Job{Kind: "VolumeBackup", VolumeBytes: -1, StoredBytes: -1, Omissions: map[string]int64{"FIFO": -1}})
	})
}
