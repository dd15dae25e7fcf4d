"""EC2: interface endpoints of a VPC."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.vpcs import VPCBackend

from emulator.patches import patch


@patch("AWSEC2/latest/APIReference/API_CreateVpcEndpoint.html", "vpc/latest/privatelink/create-interface-endpoint.html")
def interfaces() -> None:
    """An interface endpoint has an interface in each of its subnets, with an address there and the endpoint's groups; without
    groups, the VPC's default group.

    moto gives the interfaces addresses of no subnet and always the default group, and shows no group on the endpoint.
    """
    upstream = VPCBackend.create_vpc_endpoint

    def create_vpc_endpoint(self: Any, *args: Any, **kwargs: Any) -> Any:
        endpoint = upstream(self, *args, **kwargs)
        if (endpoint.vpc_endpoint_type or "").lower() == "interface" and not endpoint.security_group_ids:
            endpoint.security_group_ids = [self.get_default_security_group(endpoint.vpc_id).id]
        for interface_id in endpoint.network_interface_ids:
            interface = self.get_network_interface(interface_id)
            address = interface.subnet.get_available_subnet_ip(interface)
            interface.private_ip_address, interface.private_ip_addresses = address, [{"Primary": True, "PrivateIpAddress": address}]
            interface.interface_type, interface.requester_managed, interface.status = "vpc_endpoint", True, "in-use"
            interface._group_set = [self.get_security_group_from_id(group) for group in endpoint.security_group_ids]
        return endpoint

    VPCBackend.create_vpc_endpoint = create_vpc_endpoint
