package app

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/go-logr/logr"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/config"
	"github.com/estiba-dev/estiba/mover/metrics"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/store"
)

// process is what both roles are made of.
type process struct {
	config  config.Config
	log     logr.Logger
	manager ctrl.Manager
	metrics *metrics.Metrics
	clock   clock.RealClock
	tasks   *registry
}

// drainSlack is what the manager gets to stop after the workers have.
const drainSlack = 5 * time.Second

func newProcess(c config.Config, stderr io.Writer, caches cache.Options) (*process, error) {
	level := map[string]zapcore.Level{"debug": zapcore.DebugLevel, "info": zapcore.InfoLevel, "error": zapcore.ErrorLevel}[c.LogLevel]
	log := zap.New(zap.WriteTo(stderr), zap.Level(level), zap.JSONEncoder(func(e *zapcore.EncoderConfig) { e.EncodeTime = zapcore.RFC3339NanoTimeEncoder }))
	ctrl.SetLogger(log)

	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}

	rest, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}

	// Requests are few and short; a queue of our own would only delay them.
	rest.QPS, rest.Burst = 50, 100

	stop := c.Drain + drainSlack

	mgr, err := ctrl.NewManager(rest, ctrl.Options{
		Scheme: scheme, Logger: log, Cache: caches,
		// Secrets and other tenants' objects are never cached.
		Client:                        client.Options{Cache: &client.CacheOptions{DisableFor: uncached()}},
		Metrics:                       metricsserver.Options{BindAddress: c.MetricsAddress},
		HealthProbeBindAddress:        c.HealthAddress,
		LeaderElection:                c.LeaderElection && c.Role == config.RoleController,
		LeaderElectionID:              "estiba-controller",
		LeaderElectionNamespace:       c.Namespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       &stop,
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}

	p := &process{config: c, log: log, manager: mgr}

	if p.metrics, err = metrics.New(crmetrics.Registry); err != nil {
		return nil, err
	}

	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return nil, fmt.Errorf("add the probe of life: %w", err)
	}

	if err := mgr.AddReadyzCheck("caches", synced(mgr.GetCache(), watched(c.Role)...)); err != nil {
		return nil, fmt.Errorf("add the probe of readiness: %w", err)
	}

	return p, nil
}

func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, velerov1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("build the scheme: %w", err)
		}
	}

	return s, nil
}

// startTasks makes the registry of tasks; notify is told of each change.
func (p *process) startTasks(k *keys, notify func(namespace, key string)) error {
	counters := new(store.Counters)

	err := p.metrics.Store(func() metrics.Traffic {
		t := counters.Snapshot()
		return metrics.Traffic{Requests: t.Requests, Failures: t.Failures, BytesUp: t.BytesUp, BytesDown: t.BytesDown}
	})
	if err != nil {
		return err
	}

	limit := p.config.MemoryLimit
	if limit == 0 {
		limit = containerMemory()
	}

	boundMemory(limit, p.config.MemoryShare)

	ceiling, enough := runner.Ceiling(limit, p.config.MemoryShare, p.config.Slots+p.config.Reserved)
	if !enough {
		p.log.Info("the memory limit leaves less for each worker than it needs; raise it or use fewer slots", "limit", limit, "slots", p.config.Slots, "reserved", p.config.Reserved)
	}

	r := runner.New(runner.Config{
		Slots: p.config.Slots, Reserved: p.config.Reserved, MemoryCeiling: ceiling, CancelGrace: p.config.Bounds.Cancel,
		VolumeStall: p.config.VolumeStall, Strict: p.config.Strict, Log: p.log.WithName("worker"), Metrics: p.metrics, Clock: p.clock,
	})

	p.config.MetadataCache, p.config.ContentCache = cacheSizes(
		p.config.MetadataCache, p.config.ContentCache, p.config.CacheTotal, p.config.Slots+p.config.Reserved)

	p.tasks = &registry{
		locations: newLocations(p.manager.GetAPIReader(), p.config, counters), keys: k,
		config: p.config, clock: p.clock, known: map[string]*known{},
	}

	if err := p.tasks.locations.caches.clean(); err != nil {
		// Each task tries again, and fails with it if need be.
		p.log.Error(err, "the caches could not be cleaned up")
	}

	p.tasks.tasks = runner.NewTasks(r, func(key string) {
		p.tasks.changed(key)
		notify(p.config.Namespace, key)
	}, p.clock)

	return nil
}

// run runs until a signal; then the workers get their time to end.
func (p *process) run() error {
	ctx := ctrl.SetupSignalHandler()
	drained := make(chan struct{})

	go func() {
		defer close(drained)

		<-ctx.Done()

		wait, stop := context.WithTimeout(context.WithoutCancel(ctx), p.config.Drain)
		defer stop()

		if err := p.tasks.tasks.Drain(wait); err != nil {
			p.log.Error(err, "workers did not end in time")
		}
	}()

	if err := p.manager.Start(ctx); err != nil {
		return fmt.Errorf("run the manager: %w", err)
	}

	<-drained

	return nil
}
