// Package metrics holds the numbers that Estiba shows to Prometheus. No label
// grows with the number of volumes, pods or jobs; the one that grows with the
// cluster is the namespace of the last success. The package must not read the cluster.
package metrics

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const namespace = "estiba"

// Metrics are all of them. The zero value is of no use; see New.
type Metrics struct {
	jobs        *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	waiting     *prometheus.HistogramVec
	read        *prometheus.CounterVec
	stored      prometheus.Counter
	lastSuccess *prometheus.GaugeVec
	omissions   *prometheus.CounterVec
	fences      *prometheus.CounterVec
	lost        *prometheus.CounterVec
	repos       *prometheus.GaugeVec
	workers     *prometheus.CounterVec
	running     prometheus.Gauge
	stuck       prometheus.Gauge
	queued      prometheus.Gauge
	registry    prometheus.Registerer
}

// New makes the metrics and registers them.
func New(r prometheus.Registerer) (*Metrics, error) {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	durations := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.25, 4, 9),
		}, []string{"kind"})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}

	m := &Metrics{
		registry:    r,
		jobs:        counters("jobs_total", "Jobs that ended, by their kind, final phase and reason.", "kind", "outcome", "reason"),
		duration:    durations("job_duration_seconds", "Time from the start of a job's worker to the job's end."),
		waiting:     durations("job_wait_seconds", "Time from a job's creation to the start of its worker."),
		read:        counters("volume_bytes_total", "Bytes of file content read from volumes, or written to them, by the kind of job.", "kind"),
		stored:      prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "stored_bytes_total", Help: "Bytes that backups added to repositories, after deduplication and compression."}),
		lastSuccess: gauges("last_success_timestamp_seconds", "When the last job of a kind was completed for a volume of the namespace, in Unix time.", "kind", "namespace"),
		omissions:   counters("omitted_entries_total", "Entries, or attributes of entries, that could not be kept, by the kind of job and the reason.", "kind", "reason"),
		fences:      counters("workers_without_fence_total", "Workers that ran without a fence because the kernel lacks it.", "fence"),
		lost:        counters("lost_operations_total", "Volumes whose Backup Velero ended without waiting for them, by what became of them.", "reason"),
		repos:       gauges("repositories", "Repositories, by their phase and reason.", "phase", "reason"),
		workers:     counters("workers_total", "Workers that ended, by what they did and the code of their failure.", "verb", "code"),
		running:     prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "workers_running", Help: "Workers that run."}),
		stuck:       prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "workers_stuck", Help: "Workers that were killed and don't end, because a call to their volume does not come back."}),
		queued:      prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "queue_length", Help: "Pieces of work that wait for a slot."}),
	}

	for _, c := range []prometheus.Collector{
		m.jobs, m.duration, m.waiting, m.read, m.stored, m.lastSuccess, m.omissions, m.fences, m.lost, m.repos, m.workers, m.running, m.queued, m.stuck,
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}

	return m, nil
}

// Job is what is counted of a job that ended.
type Job struct {
	// Kind of the job, such as VolumeBackup.
	Kind string
	// Outcome is its final phase.
	Outcome string
	// Reason for the phase; only reasons that this program knows get here, so that their number is bounded.
	Reason string
	// Namespace of the volume.
	Namespace string
	// Success reports whether the job did all that was asked.
	Success bool
	// Created, Started and Ended are its times; Started is zero if no worker ran.
	Created, Started, Ended time.Time
	// VolumeBytes is what was read from or written to the volume.
	VolumeBytes int64
	// StoredBytes is what was added to the repository.
	StoredBytes int64
	// Omissions by reason.
	Omissions map[string]int64
}

// JobEnded counts a job that ended.
func (m *Metrics) JobEnded(j Job) {
	m.jobs.WithLabelValues(j.Kind, j.Outcome, j.Reason).Inc()

	if !j.Started.IsZero() {
		m.duration.WithLabelValues(j.Kind).Observe(j.Ended.Sub(j.Started).Seconds())
		m.waiting.WithLabelValues(j.Kind).Observe(j.Started.Sub(j.Created).Seconds())
	}

	// A counter that is to go down panics; what is counted is what a worker says.
	m.read.WithLabelValues(j.Kind).Add(float64(max(j.VolumeBytes, 0)))
	m.stored.Add(float64(max(j.StoredBytes, 0)))

	for reason, n := range j.Omissions {
		m.omissions.WithLabelValues(j.Kind, reason).Add(float64(max(n, 0)))
	}

	if j.Success {
		m.lastSuccess.WithLabelValues(j.Kind, j.Namespace).Set(float64(j.Ended.Unix()))
	}
}

// FenceMissing counts a worker that ran without the fence.
func (m *Metrics) FenceMissing(fence string) { m.fences.WithLabelValues(fence).Inc() }

// OperationLost counts a volume whose Backup Velero has ended without it.
func (m *Metrics) OperationLost(reason string) { m.lost.WithLabelValues(reason).Inc() }

// Repositories replaces the number of repositories by phase and reason.
func (m *Metrics) Repositories(counts map[[2]string]int) {
	m.repos.Reset()

	for k, n := range counts {
		m.repos.WithLabelValues(k[0], k[1]).Set(float64(n))
	}
}

// Workers shows how many workers run, and how much work waits for a slot.
func (m *Metrics) Workers(running, queued int) {
	m.running.Set(float64(running))
	m.queued.Set(float64(queued))
}

// WorkerEnded counts a worker that ended; the code is empty for a success.
func (m *Metrics) WorkerEnded(verb, code string) { m.workers.WithLabelValues(verb, code).Inc() }

// WorkersStuck shows how many workers were killed and don't end.
func (m *Metrics) WorkersStuck(n int) { m.stuck.Set(float64(n)) }

// Traffic is what went to and came from object stores since the start.
type Traffic struct {
	Requests, Failures, BytesUp, BytesDown int64
}

// Store shows the traffic that the function gives whenever somebody looks. It may be called once.
func (m *Metrics) Store(look func() Traffic) error {
	for name, c := range map[string]struct {
		help  string
		value func(Traffic) int64
	}{
		"store_requests_total":         {"Requests to object stores, attempts included.", func(t Traffic) int64 { return t.Requests }},
		"store_failures_total":         {"Requests to object stores that ended with an error; most are tried again.", func(t Traffic) int64 { return t.Failures }},
		"store_uploaded_bytes_total":   {"Bytes written to object stores.", func(t Traffic) int64 { return t.BytesUp }},
		"store_downloaded_bytes_total": {"Bytes read from object stores.", func(t Traffic) int64 { return t.BytesDown }},
	} {
		err := m.registry.Register(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Namespace: namespace, Name: name, Help: c.help}, func() float64 { return float64(c.value(look())) }))
		if err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}

	return nil
}
