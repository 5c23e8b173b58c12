package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapshotapi "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	snapshotclient "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	provisioning "sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// provisioner turns claims into CreateVolume calls on the CSI socket, as the external-provisioner sidecar does.
type provisioner struct {
	kube      kubernetes.Interface
	snapshots snapshotclient.Interface
	driver    csi.ControllerClient
}

func provision(ctx context.Context, kubeconfig, socket string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	snapshots, err := snapshotclient.NewForConfig(config)
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	conn, err := grpc.NewClient("passthrough:///csi", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		return err
	}
	defer conn.Close()
	p := &provisioner{kube: kube, snapshots: snapshots, driver: csi.NewControllerClient(conn)}
	provisioning.NewProvisionController(
		ctx, kube, driverName, p,
		provisioning.LeaderElection(false),
		provisioning.FailedProvisionThreshold(0), // keep trying: a source may become ready later
		provisioning.FailedDeleteThreshold(0),
		provisioning.RetryIntervalMax(10*time.Second),
		provisioning.Threadiness(8),
	).Run(ctx)
	return nil
}

// ShouldProvision leaves claims that name another kind of source to the populator that knows it.
func (p *provisioner) ShouldProvision(_ context.Context, claim *core.PersistentVolumeClaim) bool {
	kind := sourceKind(claim)
	return kind == "" || kind == "VolumeSnapshot" || kind == "PersistentVolumeClaim"
}

func sourceKind(claim *core.PersistentVolumeClaim) string {
	if source := claim.Spec.DataSourceRef; source != nil {
		return qualified(source.APIGroup, source.Kind)
	}
	if source := claim.Spec.DataSource; source != nil {
		return qualified(source.APIGroup, source.Kind)
	}
	return ""
}

func qualified(group *string, kind string) string {
	switch {
	case group == nil || *group == "":
		return kind
	case *group == snapshotapi.GroupName:
		return kind
	default:
		return kind + "." + *group
	}
}

func (p *provisioner) Provision(ctx context.Context, options provisioning.ProvisionOptions) (*core.PersistentVolume, provisioning.ProvisioningState, error) {
	claim := options.PVC
	if mode := claim.Spec.VolumeMode; mode != nil && *mode == core.PersistentVolumeBlock {
		return nil, provisioning.ProvisioningFinished, fmt.Errorf("%s offers no block volumes", driverName)
	}
	source, err := p.source(ctx, claim)
	if err != nil {
		return nil, provisioning.ProvisioningNoChange, err
	}
	parameters := map[string]string{}
	for key, value := range options.StorageClass.Parameters {
		if !strings.HasPrefix(key, "csi.storage.k8s.io/") {
			parameters[key] = value
		}
	}
	size := claim.Spec.Resources.Requests[core.ResourceStorage]
	request := &csi.CreateVolumeRequest{
		Name:                options.PVName,
		CapacityRange:       &csi.CapacityRange{RequiredBytes: size.Value()},
		Parameters:          parameters,
		VolumeContentSource: source,
	}
	for _, mode := range claim.Spec.AccessModes {
		request.VolumeCapabilities = append(request.VolumeCapabilities, &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: accessMode(mode)},
		})
	}
	created, err := p.driver.CreateVolume(ctx, request)
	if err != nil {
		return nil, provisioning.ProvisioningInBackground, err
	}
	if created.Volume.CapacityBytes > size.Value() && source != nil {
		_, _ = p.driver.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: created.Volume.VolumeId})
		return nil, provisioning.ProvisioningFinished,
			fmt.Errorf("the source needs %d bytes, the claim asks for %d", created.Volume.CapacityBytes, size.Value())
	}
	filesystem := core.PersistentVolumeFilesystem
	reclaim := core.PersistentVolumeReclaimDelete
	if options.StorageClass.ReclaimPolicy != nil {
		reclaim = *options.StorageClass.ReclaimPolicy
	}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: *resource.NewQuantity(created.Volume.CapacityBytes, resource.BinarySI)},
			PersistentVolumeReclaimPolicy: reclaim,
			VolumeMode:                    &filesystem,
			PersistentVolumeSource: core.PersistentVolumeSource{CSI: &core.CSIPersistentVolumeSource{
				Driver: driverName, VolumeHandle: created.Volume.VolumeId, VolumeAttributes: created.Volume.VolumeContext,
			}},
		},
	}, provisioning.ProvisioningFinished, nil
}

func (p *provisioner) Delete(ctx context.Context, volume *core.PersistentVolume) error {
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != driverName {
		return &provisioning.IgnoredError{Reason: "the volume is not of " + driverName}
	}
	_, err := p.driver.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: volume.Spec.CSI.VolumeHandle})
	return err
}

func (p *provisioner) source(ctx context.Context, claim *core.PersistentVolumeClaim) (*csi.VolumeContentSource, error) {
	name := ""
	if ref := claim.Spec.DataSourceRef; ref != nil {
		if ref.Namespace != nil && *ref.Namespace != "" && *ref.Namespace != claim.Namespace {
			return nil, fmt.Errorf("a source in another namespace (%s) is not supported", *ref.Namespace)
		}
		name = ref.Name
	} else if ref := claim.Spec.DataSource; ref != nil {
		name = ref.Name
	}
	switch sourceKind(claim) {
	case "":
		return nil, nil
	case "VolumeSnapshot":
		handle, err := p.snapshotHandle(ctx, claim.Namespace, name)
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: handle},
		}}, err
	default:
		handle, err := p.claimHandle(ctx, claim.Namespace, name)
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: handle},
		}}, err
	}
}

func (p *provisioner) snapshotHandle(ctx context.Context, namespace, name string) (string, error) {
	api := p.snapshots.SnapshotV1()
	snapshot, err := api.VolumeSnapshots(namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return "", err
	}
	status := snapshot.Status
	if status == nil || status.ReadyToUse == nil || !*status.ReadyToUse || status.BoundVolumeSnapshotContentName == nil {
		return "", fmt.Errorf("volumesnapshot %s/%s is not ready", namespace, name)
	}
	content, err := api.VolumeSnapshotContents().Get(ctx, *status.BoundVolumeSnapshotContentName, meta.GetOptions{})
	if err != nil {
		return "", err
	}
	ref := content.Spec.VolumeSnapshotRef
	if content.Spec.Driver != driverName || ref.UID != snapshot.UID {
		return "", fmt.Errorf("volumesnapshotcontent %s does not belong to %s/%s of this driver", content.Name, namespace, name)
	}
	if content.Status == nil || content.Status.SnapshotHandle == nil {
		return "", fmt.Errorf("volumesnapshotcontent %s has no handle yet", content.Name)
	}
	return *content.Status.SnapshotHandle, nil
}

func (p *provisioner) claimHandle(ctx context.Context, namespace, name string) (string, error) {
	source, err := p.kube.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return "", err
	}
	if source.Status.Phase != core.ClaimBound {
		return "", fmt.Errorf("claim %s/%s is not bound", namespace, name)
	}
	volume, err := p.kube.CoreV1().PersistentVolumes().Get(ctx, source.Spec.VolumeName, meta.GetOptions{})
	if err != nil {
		return "", err
	}
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != driverName {
		return "", fmt.Errorf("claim %s/%s is not of this driver", namespace, name)
	}
	return volume.Spec.CSI.VolumeHandle, nil
}

func accessMode(mode core.PersistentVolumeAccessMode) csi.VolumeCapability_AccessMode_Mode {
	switch mode {
	case core.ReadWriteMany:
		return csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case core.ReadOnlyMany:
		return csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case core.ReadWriteOncePod:
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	default:
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
}
