// A CSI driver for tests: volumes are subvolumes of one btrfs file system and snapshots are read-only subvolumes, so
// both take milliseconds and are real copies on write, as a cloud disk's are.
//
// One process serves the CSI socket, registers it with the kubelet and provisions claims; snapshots are driven by the
// published csi-snapshotter over the same socket.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const driverName = "btrfs.csi.kbbackup.io"

func main() {
	pool := flag.String("pool", "", "folder on a mounted btrfs file system that holds volumes and snapshots")
	socket := flag.String("socket", "", "path of the CSI socket to serve")
	node := flag.String("node", "node1", "name of the node the driver runs on")
	registerAt := flag.String("register", "", "path of the socket in the kubelet's plugins_registry folder; empty: do not register")
	kubeconfig := flag.String("kubeconfig", "", "provision claims of the cluster this names; empty: do not provision")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *pool, *socket, *node, *registerAt, *kubeconfig); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, pool, socket, node, registerAt, kubeconfig string) error {
	store, err := openPool(pool)
	if err != nil {
		return err
	}
	server := newServer(store, node)
	ends := make(chan error, 3)
	if err := serve(server, socket, ends); err != nil {
		return err
	}
	if registerAt != "" {
		registrar := grpc.NewServer()
		registration.RegisterRegistrationServer(registrar, &kubeletRegistration{endpoint: socket})
		if err := serve(registrar, registerAt, ends); err != nil {
			return err
		}
		defer registrar.Stop()
	}
	if kubeconfig != "" {
		go func() { ends <- provision(ctx, kubeconfig, socket) }()
	}
	defer server.GracefulStop()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ends:
		return err
	}
}

func newServer(store *pool, node string) *grpc.Server {
	server := grpc.NewServer(grpc.UnaryInterceptor(logErrors))
	csi.RegisterIdentityServer(server, &identity{})
	csi.RegisterControllerServer(server, &controller{pool: store})
	csi.RegisterNodeServer(server, &nodeService{pool: store, name: node})
	return server
}

// serve replaces a socket left by a process that was killed: nobody can be listening on it any more.
func serve(server *grpc.Server, path string, ends chan<- error) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() { ends <- server.Serve(listener) }()
	return nil
}

func logErrors(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err != nil {
		log.Printf("%s: %v", info.FullMethod, err)
	}
	return resp, err
}

type kubeletRegistration struct {
	registration.UnimplementedRegistrationServer
	endpoint string
}

func (r *kubeletRegistration) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              driverName,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r *kubeletRegistration) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Printf("the kubelet refused the driver: %s", status.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}
